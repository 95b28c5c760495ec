"""The examples in docs/formats.md are the pinned ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_examples_of_the_page_are_the_pinned_ones() -> None:
    pinned = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text())
    page = (ROOT / "docs/formats.md").read_text()
    shown = {re.sub(r"\s", "", block) for block in re.findall(r"```hex\n(.*?)```", page, re.DOTALL)}
    plain = ("block_leaf", "state_trie", "write_set", "grant", "shard_block")
    assert {pinned[name]["example"] for name in plain} <= shown
    assert pinned["transaction"]["example"] in shown
    assert pinned["genesis_signature"]["example"] in shown
    assert f"`{pinned['transaction']['example_id']}`" in page
    for example in ("example_item", "example_wraps", "example_public_wraps"):
        assert pinned["envelope"][example] in shown
    assert f"`{pinned['envelope']['example_commitment']}`" in page
    assert pinned["pieces"]["example_item"] in shown
