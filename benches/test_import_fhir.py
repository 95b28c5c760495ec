"""Row `import_fhir`: FHIR Bundles from files to sealed, synced, indexed records of a new node, beside two floors.

A floor parses and writes the same files with a JSON package, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ehrfast import Node

from benches.baselines.json_floor import with_json, with_orjson
from benches.say import say
from benches.workload import QUICK, fhir_files, import_once

ROUNDS = 2 if QUICK else 7


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path], int]:
    """What the files are, the files, and the resources in them."""
    kind, listed = fhir_files(tmp_path_factory.mktemp("files") / "fhir")
    with Node.create(tmp_path_factory.mktemp("count") / "node", organisation="Bench") as node:
        return kind, listed, import_once(node, listed)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Any]:
    """Gives new nodes; each closes before the next is made."""
    open_nodes: list[Node] = []
    numbers = count()

    def make() -> Node:
        while open_nodes:
            open_nodes.pop().close()
        open_nodes.append(Node.create(tmp_path / f"node {next(numbers)}", organisation="Bench"))
        return open_nodes[0]

    yield make
    while open_nodes:
        open_nodes.pop().close()


def _say(benchmark: Any, files: tuple[str, Sequence[Path], int], side: str) -> None:
    kind, listed, resources = files
    megabytes = sum(file.stat().st_size for file in listed) / 1e6
    params = f"{len(listed)} files, {megabytes:.1f} MB as stored, {resources:,} resources"
    say(benchmark, "import_fhir", f"{kind} Bundles", side, items=resources, unit="resources/s", params=params)


def test_import(benchmark: Any, nodes: Any, files: tuple[str, list[Path], int]) -> None:
    _say(benchmark, files, "ehrfast")
    benchmark.pedantic(import_once, setup=lambda: ((nodes(), files[1]), {}), rounds=ROUNDS)


@pytest.mark.parametrize(
    ("side", "floor"),
    [("floor: orjson.loads + dumps", with_orjson), ("floor: json.loads + json.dumps", with_json)],
)
def test_floor(benchmark: Any, files: tuple[str, list[Path], int], side: str, floor: Any) -> None:
    _say(benchmark, files, side)
    benchmark.pedantic(floor, args=(files[1],), rounds=ROUNDS)
