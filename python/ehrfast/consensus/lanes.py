"""The three lanes inside a node: emergency, urgent, routine; first in, first out within each.

Emergency may take all but a fifth of a block; urgent and routine share that fifth, and what emergency leaves, 3:1.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final

from ehrfast.consensus.engine import Admitted

EMERGENCY: Final = 0
URGENT: Final = 1
ROUTINE: Final = 2
LANES: Final = (EMERGENCY, URGENT, ROUTINE)
URGENT_SHARE: Final = (3, 4)


class Lanes:
    """Waiting transactions. Thread-safe; the order within a lane is the order of arrival."""

    def __init__(self) -> None:
        self._queues: tuple[deque[Admitted], ...] = tuple(deque() for _ in LANES)
        self._lock = Lock()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues)

    def add(self, items: list[Admitted]) -> None:
        """Appends each item to the lane it was admitted to."""
        with self._lock:
            for item in items:
                self._queues[item.lane].append(item)

    def put_back(self, items: list[Admitted]) -> None:
        """Returns items to the front of their lanes, keeping their order."""
        with self._lock:
            for item in reversed(items):
                self._queues[item.lane].appendleft(item)

    def take(self, max_items: int, max_bytes: int) -> list[Admitted]:
        """Removes the next block's items: emergency first, then urgent and routine at 3:1.

        A first item larger than what is left of a lane's room still goes when the block is empty, so nothing waits
        for ever.
        """
        with self._lock:
            emergency, urgent, routine = self._queues
            others = bool(urgent or routine)
            room = _Room(max_items, max_bytes)
            reserved = room.part(4, 5) if others else room
            taken = reserved.fill(emergency)
            room.spend(reserved)
            first = room.part(*URGENT_SHARE) if routine else room.part(1, 1)
            taken += first.fill(urgent)
            room.spend(first)
            taken += room.fill(routine)
            taken += room.fill(urgent)
            taken += room.fill(emergency)
            if not taken:
                queue = next((queue for queue in self._queues if queue), None)
                if queue is not None:
                    taken = [queue.popleft()]
            return taken

    def drain(self) -> list[Admitted]:
        """Removes everything."""
        with self._lock:
            items = [item for queue in self._queues for item in queue]
            for queue in self._queues:
                queue.clear()
            return items


class _Room:
    def __init__(self, items: int, size: int) -> None:
        self.items = items
        self.size = size
        self.used_items = 0
        self.used_size = 0

    def part(self, numerator: int, denominator: int) -> _Room:
        items = (self.items - self.used_items) * numerator // denominator
        size = (self.size - self.used_size) * numerator // denominator
        return _Room(items, size)

    def spend(self, part: _Room) -> None:
        if part is not self:
            self.used_items += part.used_items
            self.used_size += part.used_size

    def fill(self, queue: deque[Admitted]) -> list[Admitted]:
        taken: list[Admitted] = []
        while queue and self.used_items < self.items and self.used_size + queue[0].size <= self.size:
            item = queue.popleft()
            self.used_items += 1
            self.used_size += item.size
            taken.append(item)
        return taken
