"""Row `read_record`: 16 threads read records at random; each read's audit event is sealed and durable beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ehrfast import Node

from benches.baselines.sqlite_read import SqliteReads
from benches.say import say
from benches.workload import QUICK, READERS, Readers, fhir_files

READS = 320 if QUICK else 8_000
ROUNDS = 2 if QUICK else 5


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("read")
    _, files = fhir_files(folder / "fhir")
    with Node.create(folder / "node", organisation="Bench") as made:
        made.import_fhir(*files[:12])
        yield made


def _say(benchmark: Any, side: str) -> None:
    say(
        benchmark, "read_record", "16 readers", side, items=READS, unit="reads/s",
        params=f"{READS:,} reads at random; decided, audited durably, opened and checked",
    )  # fmt: skip


def test_read(benchmark: Any, node: Node) -> None:
    _say(benchmark, "ehrfast")
    with Readers(node) as readers:
        benchmark.pedantic(readers.read, args=(READS,), rounds=ROUNDS, warmup_rounds=1)


def test_sqlite(benchmark: Any, node: Node, tmp_path: Path) -> None:
    _say(benchmark, "SQLite, plain rows, WAL, synchronous=FULL")
    contents = [(f"Observation/{number}", bytes(1024)) for number in range(4_096)]
    rival = SqliteReads(tmp_path / "rows.db", contents, READERS)
    draw = Random(1)

    def reader(number: int) -> None:
        for reference in [draw.choice(contents)[0] for _ in range(READS // READERS)]:
            rival.read(number, reference)

    with ThreadPoolExecutor(READERS) as threads:
        benchmark.pedantic(lambda: list(threads.map(reader, range(READERS))), rounds=ROUNDS, warmup_rounds=1)
    rival.close()
