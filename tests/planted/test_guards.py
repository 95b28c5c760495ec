"""The plants still fit the code, and guards that no other test meets by itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast._core import SigningKey, decode_transaction, sign_transaction
from ehrfast.errors import VerificationError

from .plants import PLANTS, ROOT, Plant


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_each_plant_still_applies(plant: Plant) -> None:
    text = (ROOT / plant.file).read_text("utf-8")
    assert plant.applied(text) != text
    for test in plant.tests:
        file, _, name = test.partition("::")
        if plant.rust:
            path = ROOT / "rust" / "core" / "tests" / Path(*test.split("::")[:-1]).with_suffix(".rs")
            assert re.search(rf"fn {test.rpartition('::')[2]}\(\)", path.read_text("utf-8")), test
        else:
            tree = ast.parse((ROOT / file).read_text("utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_every_guard_of_the_list_has_its_plant() -> None:
    guards = {"sync skipped", "batch verdict ignored", "audit forgotten", "gate left out", "nonce reused"}
    assert guards | {"key slot not overwritten"} <= {plant.name for plant in PLANTS}


def test_a_decoded_transaction_is_judged_like_its_bytes(tmp_path: Path) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        chain = node.chain
        received = sign_transaction(
            SigningKey.generate(), chain.chain_id, "identity", "revoke_key", {1: bytes(32)},
            lane=2, expires=chain.clock.now_ms() + 60_000,
        ).received
        forged = decode_transaction(received[:-1] + bytes([received[-1] ^ 1]))
        with pytest.raises(VerificationError) as refused:
            chain.submit(forged).result(timeout=30)
        assert refused.value.code == "signature.invalid"
