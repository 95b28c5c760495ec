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
from benches.workload import QUICK, fhir_files, import_once, node_with_blobs

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

    def make(*, blobs: bool = False) -> Node:
        while open_nodes:
            open_nodes.pop().close()
        folder = tmp_path / f"node {next(numbers)}"
        open_nodes.append(node_with_blobs(folder) if blobs else Node.create(folder, organisation="Bench"))
        return open_nodes[0]

    yield make
    while open_nodes:
        open_nodes.pop().close()


def _say(benchmark: Any, files: tuple[str, Sequence[Path], int], side: str, beside: int = 0) -> None:
    kind, listed, resources = files
    megabytes = sum(file.stat().st_size for file in listed) / 1e6
    params = f"{len(listed)} files, {megabytes:.1f} MB as stored, {resources:,} resources"
    variant = f"{kind} Bundles"
    if beside:
        variant, params = f"{variant}, claims as blobs", f"{params}, {beside:,} of them synced files in a local folder"
    say(benchmark, "import_fhir", variant, side, items=resources, unit="resources/s", params=params)


def test_import(benchmark: Any, nodes: Any, files: tuple[str, list[Path], int]) -> None:
    _say(benchmark, files, "ehrfast")
    benchmark.pedantic(import_once, setup=lambda: ((nodes(), files[1]), {}), rounds=ROUNDS)


def test_import_with_blobs(benchmark: Any, nodes: Any, files: tuple[str, list[Path], int]) -> None:
    made: list[Node] = []

    def fresh() -> tuple[tuple[Node, list[Path]], dict[str, Any]]:
        made[:] = [nodes(blobs=True)]
        return (made[0], files[1]), {}

    benchmark.pedantic(import_once, setup=fresh, rounds=ROUNDS)
    _say(benchmark, files, "ehrfast", sum(1 for _ in made[0].blobs.list()))


@pytest.mark.parametrize(
    ("side", "floor"),
    [("floor: orjson.loads + dumps", with_orjson), ("floor: json.loads + json.dumps", with_json)],
)
def test_floor(benchmark: Any, files: tuple[str, list[Path], int], side: str, floor: Any) -> None:
    _say(benchmark, files, side)
    benchmark.pedantic(floor, args=(files[1],), rounds=ROUNDS)
