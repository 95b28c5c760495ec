"""Ordering: which waiting transactions make the next block, and at what time. Before: lanes. After: a batch for
execution."""

from __future__ import annotations

from typing import Final

from ehrfast.consensus.engine import Batch
from ehrfast.consensus.lanes import Lanes

MAX_BLOCK_ITEMS: Final = 4096
MAX_BLOCK_BYTES: Final = 24 * 1024 * 1024


def order(lanes: Lanes, *, engine_height: int, time_ms: int, proposer: bytes) -> Batch:
    """Takes the next block's transactions out of the lanes; the batch may be empty.

    Args:
        time_ms: block time, strictly above the last block's.
    """
    return Batch(engine_height, time_ms, proposer, tuple(lanes.take(MAX_BLOCK_ITEMS, MAX_BLOCK_BYTES)))
