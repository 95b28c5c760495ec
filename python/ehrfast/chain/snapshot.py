"""Snapshots of a chain: written out of a version that stands still, loaded into an empty state database.

Owns the order of the parts: head, the leaves of the last hour, the state by range of paths. Each part is checked
against one checkpoint before any of it is kept, and neither side holds more than a part at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from ehrfast._core import (
    Log,
    SegmentLog,
    SnapshotVerifier,
    StateDb,
    load_transactions,
    snapshot_head,
    snapshot_leaves,
    snapshot_state,
)
from ehrfast.chain.publish import Published
from ehrfast.chain.replay import WINDOW_MS
from ehrfast.errors import CorruptionError
from ehrfast.model.checkpoint import Checkpoint

Kind = Literal["head", "leaves", "state"]
LEAVES_BYTES: Final = 1024 * 1024
FIRST_PATH: Final = bytes(32)


def snapshot_parts(
    published: Published, *, state: StateDb, log: Log, segments: SegmentLog
) -> Iterator[tuple[Kind, bytes]]:
    """The parts of a snapshot of the published version, in the order in which they are checked.

    Args:
        state: at that very version for as long as this is iterated, as beside a writer in memory.
    """
    first_height = _window_start(segments, published.height, published.time_ms)
    first_leaf = segments.read(first_height).head.first_index
    frontier = log.frontier(first_leaf)
    yield "head", snapshot_head(published.chain_id, published.height, published.tree_size, first_leaf, frontier)
    for index, leaves in _batched(segments, first_height, published.height, first_leaf):
        yield "leaves", snapshot_leaves(index, leaves)
    start: bytes | None = FIRST_PATH
    while start is not None:
        chunk, start = snapshot_state(state, published.trie, start)
        yield "state", chunk


def load_snapshot(parts: Iterable[tuple[Kind, bytes]], checkpoint: Checkpoint, *, into: StateDb) -> int:
    """Checks every part against a verified checkpoint and fills an empty state database; gives the height.

    Replay ids of the last hour are in it; the places of older transactions come from the log, see
    `load_transaction_places`.

    Raises:
        VerificationError: ``snapshot.…``: nothing may be built on what was loaded.
        CorruptionError: ``snapshot.missing``.
    """
    verifier: SnapshotVerifier | None = None
    for kind, part in parts:
        if kind == "head":
            verifier = SnapshotVerifier(part, checkpoint.origin, checkpoint.tree_size, checkpoint.root)
        elif verifier is None:
            raise CorruptionError("snapshot.missing")
        elif kind == "leaves":
            verifier.take_leaves(part)
        else:
            verifier.take_state(part, into)
    if verifier is None:
        raise CorruptionError("snapshot.missing")
    verifier.finish(into)
    return verifier.height


def load_transaction_places(into: StateDb, segments: SegmentLog, height: int) -> None:
    """Fills in where every transaction up to a height is, before `load_snapshot` closes the loading."""
    for number in range(height + 1):
        frame = segments.read(number)
        load_transactions(into, number, frame.head.first_index, frame.leaves)


def _window_start(segments: SegmentLog, height: int, time_ms: int) -> int:
    while height > 0 and segments.read(height - 1).head.time_ms >= time_ms - WINDOW_MS:
        height -= 1
    return height


def _batched(segments: SegmentLog, first: int, last: int, index: int) -> Iterator[tuple[int, list[bytes]]]:
    batch: list[bytes] = []
    size = 0
    for height in range(first, last + 1):
        for leaf in segments.read(height).leaves:
            batch.append(leaf)
            size += len(leaf)
            if size >= LEAVES_BYTES:
                yield index, batch
                index, batch, size = index + len(batch), [], 0
    if batch:
        yield index, batch
