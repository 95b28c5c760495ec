"""Receipts that are not there yet, for threads, callbacks and asyncio alike.

All pending receipts of a chain share one condition: a block settles a thousand of them with one wake-up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, overload

from ehrfast.errors import (
    ConflictError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.receipt import Receipt

_journal: Final = logging.getLogger("ehrfast.chain")


class Settlement(threading.Condition):
    """What waiters of one chain wait on. A forked child has no thread that would ever wake it, so there it refuses."""

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def require_own_process(self) -> None:
        """Asked before the lock is taken, which another thread may have held when the process forked.

        Raises:
            UnavailableError: ``node.forked``.
        """
        if os.getpid() != self._pid:
            raise UnavailableError("node.forked")


class PendingReceipt:
    """The promise of one receipt; it is settled only after its block is durable and published."""

    __slots__ = ("_callbacks", "_outcome", "_settled")

    def __init__(self, settled: Settlement) -> None:
        self._settled = settled
        self._outcome: Receipt | EhrfastError | None = None
        self._callbacks: list[Callable[[PendingReceipt], None]] | None = None

    def done(self) -> bool:
        """Whether `result` returns or raises at once."""
        return self._outcome is not None

    def applied(self) -> bool:
        """Whether it is settled by the receipt of an applied call."""
        return isinstance(self._outcome, Receipt) and self._outcome.applied

    def result(self, timeout: float | None = None) -> Receipt:
        """Waits for the receipt of an applied transaction.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            UnavailableError: ``receipt.timeout``; the transaction is still pending. ``node.forked``: a child waits for
                its parent's transaction.
            EhrfastError: the transaction was refused, or its contract call failed.
        """
        return self.outcome(timeout).require_applied()

    def outcome(self, timeout: float | None = None) -> Receipt:
        """Like `result`, but gives the receipt of a failed call instead of raising its code."""
        if self._outcome is None:
            self._settled.require_own_process()
            deadline = None if timeout is None else monotonic() + timeout
            with self._settled:
                while self._outcome is None:
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        raise UnavailableError("receipt.timeout")
                    self._settled.wait(left)
        if isinstance(self._outcome, EhrfastError):
            raise self._outcome
        return self._outcome

    def add_done_callback(self, callback: Callable[[PendingReceipt], None]) -> None:
        """Calls back once settled, on the thread that settles; at once when it already is."""
        self._settled.require_own_process()
        with self._settled:
            if self._outcome is None:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        _call(callback, self)

    def __await__(self) -> Generator[object, None, Receipt]:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self.add_done_callback(_Awaiting(loop, woken))
        yield from woken
        return self.result(0)

    def __repr__(self) -> str:
        return f"PendingReceipt({'settled' if self.done() else 'pending'})"


class _Awaiting:
    """A coroutine that waits. Those of one event loop are woken together: each wake-up of a loop is a system call."""

    __slots__ = ("loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
        self.loop = loop
        self.woken = woken

    def __call__(self, _: PendingReceipt) -> None:
        _wake(self.loop, [self.woken])


def _wake(loop: asyncio.AbstractEventLoop, woken: list[asyncio.Future[None]]) -> None:
    with suppress(RuntimeError):  # the loop is closed: whoever waited gave up before the block was there
        loop.call_soon_threadsafe(_finish, woken)


def _finish(woken: list[asyncio.Future[None]]) -> None:
    for one in woken:
        if not one.done():
            one.set_result(None)


class PendingReceipts(Sequence[PendingReceipt]):
    """The promises of one `submit_many`, in its order."""

    def __init__(self, items: list[PendingReceipt]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> PendingReceipt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PendingReceipt]: ...
    def __getitem__(self, index: int | slice) -> PendingReceipt | Sequence[PendingReceipt]:
        return self._items[index]

    def results(self, timeout: float | None = None) -> list[Receipt]:
        """All receipts; raises the first refusal or failure. The timeout covers them together."""
        deadline = None if timeout is None else monotonic() + timeout
        return [item.result(None if deadline is None else max(0.0, deadline - monotonic())) for item in self._items]


def settle(settled: Settlement, outcomes: Sequence[tuple[PendingReceipt, Receipt | EhrfastError]]) -> None:
    """Gives each promise its outcome, wakes all waiters once, then runs callbacks outside the lock."""
    called: list[tuple[PendingReceipt, list[Callable[[PendingReceipt], None]]]] = []
    awaiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    with settled:
        for pending, outcome in outcomes:
            pending._outcome = outcome
            if pending._callbacks:
                called.append((pending, pending._callbacks))
                pending._callbacks = None
        settled.notify_all()
    for pending, callbacks in called:
        for callback in callbacks:
            if isinstance(callback, _Awaiting):
                awaiting.setdefault(callback.loop, []).append(callback.woken)
            else:
                _call(callback, pending)
    for loop, woken in awaiting.items():
        _wake(loop, woken)


def _call(callback: Callable[[PendingReceipt], None], pending: PendingReceipt) -> None:
    """A callback is the caller's code on the thread that commits: what it raises must not stop the chain."""
    try:
        callback(pending)
    except Exception as error:  # named without its text, which is not ours and may be about a patient
        _journal.error("a callback of a receipt raised %s", type(error).__name__)


_REFUSALS: dict[str, type[EhrfastError]] = {
    "signature.invalid": VerificationError,
    "transaction.replayed": ConflictError,
    "transaction.expired": ConflictError,
    "contract.unknown": NotFoundError,
    "clock.unsteady": UnavailableError,
    "chain.closed": UnavailableError,
}


def refusal(code: str) -> EhrfastError:
    """The exception a refused transaction is answered with."""
    return _REFUSALS.get(code, InvalidInputError)(code)
