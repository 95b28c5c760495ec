"""The replay window: ids of the last hour's transactions, by block time and never by the clock.

A transaction with an id in the window is replayed; one that expires before block time can never be applied again.
Ids are dropped when a block is published, never while one is executed. Those from before this process opened the
chain are asked of the state database, for as long as they may lie within the hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

WINDOW_MS: Final = 60 * 60 * 1000
_BUCKET_MS: Final = 60 * 1000


class ReplayWindow:
    """Ids seen within the hour before the newest published block, in minute buckets.

    Args:
        earlier: which of some ids were ever applied. One applied more than an hour ago has expired as well, so that
            asking beyond the hour refuses nothing that would run.
        until_ms: block time from which on no block before the opening lies within the hour.
    """

    def __init__(self, earlier: Callable[[Sequence[bytes]], Iterable[bytes]] | None = None, until_ms: int = 0) -> None:
        self._seen: set[bytes] = set()
        self._buckets: dict[int, list[bytes]] = {}
        self._earlier = earlier
        self._until_ms = until_ms

    def __contains__(self, transaction_id: bytes) -> bool:
        return bool(self.known([transaction_id]))

    def __len__(self) -> int:
        return len(self._seen)

    def known(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of the ids that are in the window."""
        listed = list(ids)
        found = self._seen.intersection(listed)
        earlier = self._earlier
        if earlier is not None and listed:
            found.update(earlier(listed))
        return found

    def add(self, ids: Iterable[bytes], time_ms: int) -> None:
        """Remembers the ids of a block with that time, failed calls included."""
        listed = list(ids)
        self._seen.update(listed)
        self._buckets.setdefault(time_ms // _BUCKET_MS, []).extend(listed)

    def forget_before(self, time_ms: int) -> None:
        """Drops whole minutes that ended more than an hour before this block time."""
        if time_ms > self._until_ms:
            self._earlier = None
        oldest = (time_ms - WINDOW_MS) // _BUCKET_MS
        for bucket in [bucket for bucket in self._buckets if bucket < oldest]:
            self._seen.difference_update(self._buckets.pop(bucket))


def expiry_fault(expires_ms: int, block_time_ms: int) -> str | None:
    """Whether a transaction may run in a block of that time: None, ``transaction.expired`` or
    ``transaction.too_early``."""
    if expires_ms <= block_time_ms:
        return "transaction.expired"
    if expires_ms > block_time_ms + WINDOW_MS:
        return "transaction.too_early"
    return None
