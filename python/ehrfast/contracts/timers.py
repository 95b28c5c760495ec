"""Timers in state: a binary heap by (time, number), so the earliest is one read away and order is the same everywhere.

Owns the keys `timers`, `timer_heap` and `timer` of the runtime's names; a timer that ran or failed is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from ehrfast.contracts.contract import StateView
from ehrfast.model.codec import keyed_digest

NAMES: Final = "runtime"
_COUNTERS: Final = ("timers",)
SALT_BYTES: Final = 16

Entry = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Timer:
    """One call that waits for its time.

    number: counts the timers of the chain, never reused. salt: blinds what its call writes; never shown.
    sender: the key whose transaction set it.
    """

    number: int
    time_ms: int
    contract: str
    method: str
    values: tuple[object, ...]
    sender: bytes
    salt: bytes

    @property
    def id(self) -> bytes:
        """32 bytes that name the timer to everyone without telling its salt."""
        return keyed_digest("timer", self.salt)


def timer_salt(salt: bytes, number: int) -> bytes:
    """The salt of a timer from the salt of the call that set it, 16 bytes."""
    return keyed_digest("timer", salt + number.to_bytes(8, "big"))[:SALT_BYTES]


def add(
    view: StateView,
    salt: bytes,
    time_ms: int,
    contract: str,
    method: str,
    values: tuple[object, ...],
    sender: bytes,
) -> Timer:
    """Writes a timer into the open frame; costs one read and one write per level it rises, two on average."""
    size, number = _counters(view)
    timer = Timer(number, time_ms, contract, method, values, sender, timer_salt(salt, number))
    view.put(NAMES, ("timer", number), (time_ms, contract, method, values, sender, timer.salt))
    view.put(NAMES, _COUNTERS, (size + 1, number + 1))
    _rise(view, size, (time_ms, number))
    return timer


def earliest(view: StateView) -> Entry | None:
    """Time and number of the next timer."""
    return cast("Entry | None", view.get(NAMES, ("timer_heap", 0)))


def find(view: StateView, number: int) -> Timer:
    """The timer of that number, which must exist."""
    row = cast("tuple[Any, ...]", view.get(NAMES, ("timer", number)))
    return Timer(number, *row)


def remove_earliest(view: StateView) -> None:
    """Takes the earliest timer out; the heap must not be empty."""
    size, number = _counters(view)
    first = _entry(view, 0)
    last = _entry(view, size - 1)
    view.delete(NAMES, ("timer", first[1]))
    view.delete(NAMES, ("timer_heap", size - 1))
    view.put(NAMES, _COUNTERS, (size - 1, number))
    if size > 1:
        _sink(view, size - 1, last)


def _counters(view: StateView) -> tuple[int, int]:
    return cast("tuple[int, int] | None", view.get(NAMES, _COUNTERS)) or (0, 0)


def _entry(view: StateView, place: int) -> Entry:
    return cast("Entry", view.get(NAMES, ("timer_heap", place)))


def _rise(view: StateView, place: int, entry: Entry) -> None:
    while place:
        above = (place - 1) // 2
        other = _entry(view, above)
        if other <= entry:
            break
        view.put(NAMES, ("timer_heap", place), other)
        place = above
    view.put(NAMES, ("timer_heap", place), entry)


def _sink(view: StateView, size: int, entry: Entry) -> None:
    """Places an entry in a heap of `size` places whose first is free."""
    place = 0
    while (below := 2 * place + 1) < size:
        other = _entry(view, below)
        if below + 1 < size:
            right = _entry(view, below + 1)
            if right < other:
                other, below = right, below + 1
        if entry <= other:
            break
        view.put(NAMES, ("timer_heap", place), other)
        place = below
    view.put(NAMES, ("timer_heap", place), entry)
