"""docs/contracts.md says what is so: its example is the toy, its code runs, its table names every rule of the guard."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from ehrfast.contracts import meter
from ehrfast.contracts.guard import CONTAINER_METHODS, CONTEXT_METHODS, CONTEXT_VALUES, NAMED_RULES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "contracts.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_the_toy() -> None:
    assert BLOCKS[0] == (ROOT / "tests" / "contracts_toy" / "counter.py").read_text()


def test_the_second_block_runs() -> None:
    names: dict[str, object] = {}
    exec(compile(BLOCKS[1], "docs/contracts.md", "exec"), names)
    assert names["registry"]


def test_the_table_names_every_rule() -> None:
    source = resources.files("ehrfast.contracts").joinpath("guard.py").read_text()
    rules = set(re.findall(r'_refuse\("(\w+)"', source)) | set(re.findall(r'get\(type\([a-z.]+\), "(\w+)"\)', source))
    rules |= set(NAMED_RULES) | {"star", "float"}
    rows = PAGE.split("| rule | refused | instead |")[1].splitlines()[2:]
    named = {name for line in rows if line.startswith("|") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == rules


def test_the_page_names_what_a_contract_may_use() -> None:
    words = set(re.findall(r"\w+", PAGE))
    assert set(CONTEXT_VALUES) | set(CONTAINER_METHODS) | set(meter.COUNTED) <= words
    assert set(CONTEXT_METHODS) - {"schedule"} <= words
    for name in ("READ", "WRITE", "CALL", "EVENT", "TIMER", "KEY_CHECK"):
        assert str(getattr(meter, name)) in words
