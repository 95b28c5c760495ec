"""Time as a chain sees it: the wall clock, watched against the monotonic one.

Block time is max(previous + 1, clock). A wall clock that leaves the monotonic one by more than ten minutes stops all
but emergency until the operator says which is right; at open a jump of more than 400 days forward asks as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ehrfast.errors import UnavailableError

MAX_DRIFT_MS: Final = 10 * 60 * 1000
MAX_FORWARD_AT_OPEN_MS: Final = 400 * 24 * 3600 * 1000


def wall_ms() -> int:
    """Unix milliseconds by the wall clock."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds that only ever grow."""
    return time.monotonic_ns() // 1_000_000


class ChainClock:
    """The clock of one open chain.

    Args:
        last_block_ms: time of the newest block.
        trusted: the operator's word that the wall clock is right although it jumped.
    """

    def __init__(
        self,
        last_block_ms: int,
        *,
        trusted: bool = False,
        wall: Callable[[], int] = wall_ms,
        monotonic: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._asks = not trusted and wall() - last_block_ms > MAX_FORWARD_AT_OPEN_MS
        self._last_block_ms = last_block_ms

    def learn(self, block_ms: int) -> None:
        """Another chain of the same machine has a block of that time: the clock was right then."""
        self._asks = self._asks and self._wall() - block_ms > MAX_FORWARD_AT_OPEN_MS

    def now_ms(self) -> int:
        """The wall clock."""
        return self._wall()

    def block_time_ms(self, previous_ms: int) -> int:
        """Time of the next block: above the previous one, the clock if it is later."""
        return max(previous_ms + 1, self._wall())

    def judging_ms(self, last_block_ms: int) -> int:
        """The moment a read is judged at: the later of clock and newest block."""
        return max(self._wall(), last_block_ms)

    def ahead_ms(self, last_block_ms: int) -> int:
        """How far it is ahead; 0 when it is not."""
        return max(0, self._wall() - last_block_ms)

    def behind_ms(self, last_block_ms: int) -> int:
        """How far the wall clock is behind the newest block; 0 when it is not."""
        return max(0, last_block_ms - self._wall())

    @property
    def steady(self) -> bool:
        """Whether the wall clock still agrees with the monotonic one."""
        drift = (self._wall() - self._monotonic()) - self._offset
        return not self._asks and abs(drift) <= MAX_DRIFT_MS

    def trust(self) -> None:
        """The operator's word: the wall clock is right."""
        self._asks = False
        self._offset = self._wall() - self._monotonic()

    def require_steady(self) -> None:
        """Refuses routine and urgent work while the clock is in doubt.

        Raises:
            UnavailableError: ``clock.unsteady``.
        """
        if not self.steady:
            raise UnavailableError("clock.unsteady")
