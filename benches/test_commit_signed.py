"""Row `commit_signed`: signed calls of a small contract, from bytes to a synced block under a signed checkpoint.

The rival keeps signed rows in SQLite with a sync each commit; it executes nothing and proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from benches.baselines.sqlite_commit import SqliteLedger
from benches.say import say
from benches.workload import QUICK, REGISTERED_KEYS, TASKS, CounterChain, signed_messages

MANY = 4_096 if QUICK else 20_480
BY_TASKS = 1_280 if QUICK else 6_400
ROUNDS = 3 if QUICK else 9
ALONE = 30 if QUICK else 200
ROWS = 1_000
_names = count()

VARIANTS = {
    "submit_many": (MANY, "transactions/s", f"{MANY:,} at once; SQLite {ROWS:,} rows a write batch"),
    "64 asyncio tasks": (
        BY_TASKS,
        "transactions/s",
        f"each task waits for its receipt; SQLite {TASKS} rows a write batch",
    ),
    "lone writer": (1, "ms p50", "one after another, each waits for its receipt; SQLite 1 row a write batch"),
}


def _say(benchmark: Any, variant: str, side: str) -> None:
    items, unit, params = VARIANTS[variant]
    say(benchmark, "commit_signed", variant, side, items=items, unit=unit, params=f"counter.add; {params}")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[CounterChain]:
    made = CounterChain(tmp_path / "node")
    yield made
    made.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(tmp_path / "rows.db")
    yield made
    made.close()


def _fresh(count: int) -> Any:
    """Messages the ledger has not seen: the rival's rows are as new as ours."""
    return lambda: signed_messages(f"row {next(_names)}", REGISTERED_KEYS, count)


def test_submit_many(benchmark: Any, chain: CounterChain) -> None:
    _say(benchmark, "submit_many", "ehrfast")
    benchmark.pedantic(
        chain.submit_many, setup=lambda: ((chain.sign(MANY),), {}), rounds=ROUNDS, warmup_rounds=1
    )
    assert chain.chain.published.tree_size > MANY


def test_asyncio_tasks(benchmark: Any, chain: CounterChain) -> None:
    _say(benchmark, "64 asyncio tasks", "ehrfast")
    benchmark.pedantic(
        chain.submit_by_tasks, setup=lambda: ((chain.sign(BY_TASKS),), {}), rounds=ROUNDS, warmup_rounds=1
    )


def test_lone_writer(benchmark: Any, chain: CounterChain) -> None:
    _say(benchmark, "lone writer", "ehrfast")
    submissions = iter(chain.sign(ALONE + 10))
    benchmark.pedantic(
        chain.submit_alone, setup=lambda: (([next(submissions)],), {}), rounds=ALONE, warmup_rounds=10
    )


@pytest.mark.parametrize(
    ("variant", "items", "rows", "rounds"),
    [("submit_many", MANY, ROWS, ROUNDS), ("64 asyncio tasks", BY_TASKS, TASKS, ROUNDS), ("lone writer", 1, 1, ALONE)],
)
def test_sqlite(benchmark: Any, ledger: SqliteLedger, variant: str, items: int, rows: int, rounds: int) -> None:
    _say(benchmark, variant, "SQLite, WAL, synchronous=FULL")
    fresh = _fresh(items)
    benchmark.pedantic(ledger.write, setup=lambda: ((fresh(), rows), {}), rounds=rounds, warmup_rounds=1)
