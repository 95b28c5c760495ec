"""Rows `backup` and `restore`: a node of a million small transactions, to a folder beside it and out of it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ehrfast import Node

from benches.say import say, tell
from benches.workload import QUICK, bytes_below, node_with_transactions

TRANSACTIONS = 5_000 if QUICK else 1_000_000
VARIANT = f"{TRANSACTIONS:,} transactions"


@dataclass(frozen=True, slots=True)
class Place:
    """A closed node, its backup, and the key that opens it."""

    node: Path
    target: Path
    key: bytes
    checkpoint: bytes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("backup")
    node_with_transactions(folder / "node", TRANSACTIONS)
    with Node.open(folder / "node", read_only=True) as node:
        checkpoint = node.chain.checkpoint
    return Place(folder / "node", folder / "target", Node.backup_root_key(folder / "node"), checkpoint)


def _say(benchmark: Any, place: Place, row: str) -> None:
    megabytes = bytes_below(place.node) / 1e6
    params = f"one class key posted by each, {megabytes:,.0f} MB; folders on one disk"
    say(benchmark, row, VARIANT, "ehrfast", items=1, unit="s", params=params)


def test_backup(benchmark: Any, place: Place) -> None:
    _say(benchmark, place, "backup")
    benchmark.pedantic(Node.backup_folder, args=(place.node, place.target), rounds=1)
    size = bytes_below(place.target) / TRANSACTIONS
    tell(benchmark, "backup", f"{VARIANT}, size", "ehrfast", size, "B each", "the whole target")


def test_restore(benchmark: Any, place: Place, tmp_path: Path) -> None:
    _say(benchmark, place, "restore")
    report = benchmark.pedantic(
        Node.restore,
        args=(place.target, tmp_path / "again", place.key),
        kwargs={"checkpoint": place.checkpoint},
        rounds=1,
    )
    assert report.writable
