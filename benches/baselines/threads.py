"""A rival on as many processors as we use: in place for one, else each half in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

from ehrfast._core import thread_count


class OnProcessors:
    """The work on all items, split over as many processes as the core has threads in this run.

    Args:
        work: what to do with some of the items; its answers are gathered in order.
    """

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._work = work
        count = thread_count()
        each = -(-len(items) // count)
        parts = [items[start : start + each] for start in range(0, len(items), each)]
        self._mine = parts[0]
        self._others = [_Other(work, part) for part in parts[1:]]

    def __call__(self) -> list[Any]:
        """The answers for the parts; the first part runs here."""
        for other in self._others:
            other.begin()
        return [self._work(self._mine), *(other.end() for other in self._others)]

    def close(self) -> None:
        """Ends the processes."""
        for other in self._others:
            other.close()


class _Other:
    """A forked process that holds its part already, so only answers travel."""

    def __init__(self, work: Callable[[Any], Any], part: Any) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, work, part), daemon=True)
        self._process.start()
        there.close()

    def begin(self) -> None:
        self._here.send(True)

    def end(self) -> Any:
        return self._here.recv()

    def close(self) -> None:
        self._here.send(False)
        self._process.join()


def _serve(pipe: Any, work: Callable[[Any], Any], part: Any) -> None:
    while pipe.recv():
        pipe.send(work(part))
