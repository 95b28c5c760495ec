"""Blobs seen from the log: which items it says lie outside, and orphans, which nothing names.

An orphan is what a write left that stored its blobs and then did not become a block. It may still become one within the
replay window, so only older ones are collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ehrfast.chain.chain import Chain
from ehrfast.chain.replay import WINDOW_MS
from ehrfast.records.blobs.store import BlobStore
from ehrfast.records.placement import BLOB

MARGIN_MS: Final = 60 * 60 * 1000
"""Beyond the replay window: the store's clock need not be ours."""
_ROWS: Final = 1


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection found.

    Args:
        named: blobs that the log names.
        orphans: blobs that nothing names, old enough to go.
        bytes: of the orphans.
        unfinished: what broken-off writers left.
    """

    named: int
    orphans: int
    bytes: int
    unfinished: int


def named_blobs(chain: Chain, progress: Callable[[int, int], None] | None = None) -> Iterator[bytes]:
    """Digests of the items that published blocks say are blobs, pruned and erased ones included."""
    newest = chain.published.height
    for height in range(newest + 1):
        block = chain.read_block(height)
        for transaction, receipt in block.calls:
            if transaction is None or not receipt.applied or transaction.contract != "records":
                continue
            rows = transaction.args.get(_ROWS, ()) if transaction.method == "put" else ()
            for row in rows if isinstance(rows, tuple) else ():
                if row[8] == BLOB:
                    yield chain.read_digest(height, transaction.attachments[row[6]][0], row[7])
        if progress is not None:
            progress(height + 1, newest + 1)


def collect_orphans(
    chain: Chain,
    store: BlobStore,
    *,
    now_ms: int,
    remove: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Finds blobs that no block names, and removes them unless only asked to look.

    Args:
        now_ms: time; a blob younger than the replay window and an hour more is left alone.
    """
    before_ms = now_ms - WINDOW_MS - MARGIN_MS
    old = [each for each in store.list() if each.modified_ms < before_ms]  # before the log is read: what is old and
    named = set(named_blobs(chain, progress))  # not in the log by then never will be
    orphans = [each for each in old if each.digest not in named]
    unfinished = 0
    if remove:
        for each in orphans:
            store.delete(each.digest)
        unfinished = store.remove_unfinished(before_ms)
    return Collected(len(named), len(orphans), sum(each.bytes for each in orphans), unfinished)
