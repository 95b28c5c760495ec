"""Row `bytes_on_disk`: what a small transaction and a resource cost in a node's folder beyond what they carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ehrfast import Node

from benches.say import tell
from benches.workload import QUICK, CounterChain, bytes_below, fhir_files, node_with_blobs

TRANSACTIONS = 4_096 if QUICK else 102_400
BATCH = 20_480


def test_small_transactions(benchmark: Any, tmp_path: Path) -> None:
    CounterChain(tmp_path / "empty").close()
    chain = CounterChain(tmp_path / "node")
    submissions = chain.sign(TRANSACTIONS)

    def submit() -> None:
        for start in range(0, TRANSACTIONS, BATCH):
            chain.submit_many(submissions[start : start + BATCH])

    benchmark.pedantic(submit, rounds=1)
    chain.close()
    carried = sum(len(submission.transaction) for submission in submissions)
    grown = bytes_below(tmp_path / "node") - bytes_below(tmp_path / "empty")
    beyond = (grown - carried) / TRANSACTIONS
    params = f"{TRANSACTIONS:,} calls of counter.add, signed bytes of {carried / TRANSACTIONS:.0f} B; the whole folder"
    tell(benchmark, "bytes_on_disk", "a small transaction, beyond its signed bytes", "ehrfast", beyond, "B", params)


@pytest.mark.parametrize("beside", [False, True], ids=["in the log", "blobs"])
def test_resources(benchmark: Any, tmp_path: Path, beside: bool) -> None:
    kind, files = fhir_files(tmp_path / "fhir")
    Node.create(tmp_path / "empty", organisation="Bench").close()
    folder = tmp_path / "node"
    with node_with_blobs(folder) if beside else Node.create(folder, organisation="Bench") as node:
        report = benchmark.pedantic(node.import_fhir, args=files, rounds=1)
        blobs = sum(1 for _ in node.blobs.list())
        sealed = sealed_bytes(node)
    grown = bytes_below(folder) - bytes_below(tmp_path / "empty")
    each = sealed / report.resources
    params = f"{report.resources:,} resources of {kind}, sealed {each:,.0f} B each; the whole folder, {blobs:,} blobs"
    variant = "by sealed payload of a resource" + (", claims as blobs" if beside else "")
    tell(benchmark, "bytes_on_disk", variant, "ehrfast", grown / sealed, "x", params)


def sealed_bytes(node: Node) -> int:
    """Bytes of all items and wraps, in the log and beside it."""
    chain = node.chain
    total = sum(each.bytes for each in node.blobs.list())
    for height in range(chain.published.height + 1):
        frame = chain.segments.read(height)
        for pack in map(frame.stored_pack, frame.pack_roots):
            for position in range(len(pack)):
                total += len(pack.item(position) or b"") + len(pack.wraps(position) or b"")
    return total
