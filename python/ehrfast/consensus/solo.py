"""The solo engine: one sequencer in this process; a block is whatever waits when the last one is executed.

Execution of block k overlaps the sync of k-1, no more: at most one executed block waits for its commit.
A lone writer never waits for company; many writers share one sync (group commit).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ehrfast.consensus.engine import Application, register_engine


class SoloEngine:
    """Decides alone. Two threads: one proposes and executes, one commits and publishes."""

    name = "solo"

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting = False
        self._stopping = False
        self._executed = 0
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(
        self,
        application: Application,
        *,
        clock: Callable[[], int],
        next_due: Callable[[], int | None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Begins to drive; see `Engine.start`."""
        self._application = application
        self._clock = clock
        self._next_due = next_due
        self._failed = failed
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._sequence,), name="ehrfast-sequence", daemon=True),
            threading.Thread(target=self._guarded, args=(self._commit,), name="ehrfast-commit", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Something waits in the lanes, or the earliest timer moved."""
        with self._condition:
            self._waiting = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Lets the waiting transactions run, commits them, and returns."""
        with self._condition:
            self._stopping = True
            self._waiting = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # handed to the chain, which refuses everything after it
            with self._condition:
                first, self._failure = self._failure is None, self._failure or error
                self._stopping = True
                self._condition.notify_all()
            if first:
                self._failed(error)

    def _sequence(self) -> None:
        while self._wait_for_work():
            batch = self._application.propose(self._clock())
            if batch is None:
                continue
            if self._application.execute(batch).leaves:
                with self._condition:
                    self._executed += 1
                    self._condition.notify_all()

    def _wait_for_work(self) -> bool:
        with self._condition:
            while True:
                if self._failure is not None:
                    return False
                free = self._executed < 2
                if free and self._waiting:
                    self._waiting = False
                    return True
                if free and self._timer_due():
                    return True
                if self._stopping and not self._waiting:
                    return False
                self._condition.wait(self._timer_wait() if free else None)

    def _timer_due(self) -> bool:
        due = self._next_due()
        return due is not None and due <= self._clock() and not self._stopping

    def _timer_wait(self) -> float | None:
        due = self._next_due()
        return None if due is None else min(max(due - self._clock(), 1) / 1000, 3600.0)

    def _commit(self) -> None:
        while True:
            with self._condition:
                while not self._executed:
                    if self._failure is not None or (self._stopping and not self._threads[0].is_alive()):
                        return
                    self._condition.wait(0.05 if self._stopping else None)
            self._application.commit()
            with self._condition:
                self._executed -= 1
                self._condition.notify_all()


register_engine(SoloEngine.name, SoloEngine)
