"""Commit: one sealed frame, one append, one sync. Before: a block in memory. After: a block that survives a crash.

A crash at any byte leaves the old block or the new one. A failed append or sync is never retried as success: it
poisons the log, and the chain stops writing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ehrfast._core import Block, SealedPack, SegmentLog


def commit(segments: SegmentLog, block: Block, packs: Sequence[SealedPack]) -> None:
    """Returns once the block is durable.

    Raises:
        UnavailableError: ``store.full``, ``store.io``, ``store.read_only`` or ``log.poisoned``.
    """
    segments.append(block, packs)
