"""Subscribers: who is told of published blocks, each on a thread of its own and at its own pace.

A subscriber follows the log by height, so a slow one, a new one and a rebuilt one all read the same blocks in the same
way, and nothing is queued for them in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from ehrfast.errors import CorruptionError, EhrfastError, UnavailableError
from ehrfast.model.block import PublishedBlock


class Subscription:
    """One follower of a chain.

    Args:
        handler: called with each block in order, on the subscription's own thread.
        read: gives a block by height.
        published: gives the newest published height.
        changed: notified whenever that height grows.
        next_height: the first block to be told.
    """

    def __init__(
        self,
        handler: Callable[[PublishedBlock], None],
        *,
        read: Callable[[int], PublishedBlock],
        published: Callable[[], int],
        changed: threading.Condition,
        next_height: int,
    ) -> None:
        self._handler = handler
        self._read = read
        self._published = published
        self._changed = changed
        self._next = next_height
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="ehrfast-subscriber", daemon=True)
        self._thread.start()

    @property
    def height(self) -> int:
        """The last block its handler has finished; -1 before the first."""
        return self._next - 1

    def wait(self, height: int, timeout: float = 30.0) -> None:
        """Returns once the handler has finished that block: reads see what was just written.

        Raises:
            UnavailableError: ``subscriber.failed``, with its name and the block it failed at, or
                ``subscriber.timeout``.
        """
        if self._next > height:
            return
        deadline = monotonic() + timeout
        with self._changed:
            while self._next <= height:
                if self._failure is not None:
                    failed = {
                        "subscriber": _name_of(self._handler),
                        "height": self._next,
                        "cause": _cause_of(self._failure),
                    }
                    ours = self._failure if isinstance(self._failure, EhrfastError) else None
                    if isinstance(ours, CorruptionError):  # damage is not something to wait for
                        raise CorruptionError(ours.code, {**ours.details, "height": self._next}) from ours
                    raise UnavailableError("subscriber.failed", failed) from ours
                left = deadline - monotonic()
                if left <= 0 or self._stopping:
                    raise UnavailableError("subscriber.timeout", {"height": height})
                self._changed.wait(left)

    def stop(self) -> None:
        """Ends it after the block in hand."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _follow(self) -> None:
        try:
            while self._await_block():
                self._handler(self._read(self._next))
                with self._changed:
                    self._next += 1
                    self._changed.notify_all()
        except BaseException as error:  # kept for `wait`: whoever depends on this projection is told
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _await_block(self) -> bool:
        with self._changed:
            while self._next > self._published() and not self._stopping:
                self._changed.wait()
            return not self._stopping


def _name_of(handler: Callable[[PublishedBlock], None]) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)


def _cause_of(failure: BaseException) -> str:
    """The code of what went wrong, or its kind: the text of a foreign exception could quote a record."""
    return failure.code if isinstance(failure, EhrfastError) else type(failure).__name__
