"""Execution: one contract call per transaction over an overlay of the state. Before: a batch. After: receipts and a
write set.

A failed call drops its writes and keeps its leaf; a refused transaction (replayed, expired, too early) gets neither.
Nothing here is durable, and nothing here reads the clock.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ehrfast._core import SealedPack, StateView, Transaction, cbor_encode
from ehrfast.chain.replay import expiry_fault
from ehrfast.consensus.engine import Admitted, Batch
from ehrfast.contracts.contract import BlockContext, Outcome
from ehrfast.contracts.runtime import Runtime
from ehrfast.model.receipt import Receipt


@dataclass(slots=True)
class Execution:
    """The result of a batch.

    Args:
        entries: (transaction or timer id, encoded receipt) in leaf order.
        receipts: the same receipts as values.
        refused: (item, code) of items that get no leaf.
        early: items that must wait for a later block.
        packs: packs of the executed transactions, in leaf order.
    """

    entries: list[tuple[Transaction | bytes, bytes]] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    refused: list[tuple[Admitted, str]] = field(default_factory=list)
    early: list[Admitted] = field(default_factory=list)
    packs: list[SealedPack] = field(default_factory=list)


@contextmanager
def _collector_resting() -> Iterator[None]:
    """Execution makes thousands of objects that live until their block is told, and no cycles: looking for cycles among
    them again and again costs a sixth of it. What waits is looked at once, afterwards."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_collector_resting()
def execute(
    batch: Batch,
    *,
    runtime: Runtime,
    view: StateView,
    block: BlockContext,
    first_index: int,
    seen: Callable[[Collection[bytes]], Collection[bytes]],
) -> Execution:
    """Runs due timers, then the batch in its order.

    Args:
        view: an empty overlay over the state before this block.
        first_index: leaf index of the block's first leaf.
        seen: which of some ids were executed within the replay window, unpublished blocks included.
    """
    result = Execution()
    entries, receipts = result.entries, result.receipts
    height, time_ms = block.height, block.time_ms
    run, new_tuple = runtime.execute, tuple.__new__

    def record(entry: Transaction | bytes, identifier: bytes, index: int, outcome: Outcome) -> None:
        receipt = new_tuple(Receipt, (identifier, height, index, *outcome))
        entries.append((entry, cbor_encode(receipt)))
        receipts.append(receipt)

    for timer_id, outcome in runtime.run_timers(view, block, first_index):
        record(timer_id, timer_id, first_index + len(entries), outcome)
    done = set(seen([item.transaction.id for item in batch.items]))
    for item in batch.items:
        transaction = item.transaction
        identifier = transaction.id
        fault = expiry_fault(transaction.expires, time_ms)
        if fault == "transaction.too_early":
            result.early.append(item)
        elif fault is not None:
            result.refused.append((item, fault))
        elif identifier in done:
            result.refused.append((item, "transaction.replayed"))
        else:
            done.add(identifier)
            index = first_index + len(entries)
            record(transaction, identifier, index, run(view, transaction, block, index))
            if item.packs:
                result.packs.extend(item.packs)
    return result
