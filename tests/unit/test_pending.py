"""Promises of receipts: for threads, callbacks and asyncio alike; whoever waits badly harms nobody else."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from ehrfast.chain.pending import PendingReceipt, PendingReceipts, Settlement, refusal, settle
from ehrfast.errors import (
    ConflictError,
    DeniedError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.receipt import Receipt

APPLIED = Receipt(b"\x01" * 32, 1, 2, 0, 10, 1, ())
FAILED = Receipt(b"\x02" * 32, 1, 3, "records.not_permitted", 10, 0, ())


@pytest.fixture
def settled() -> Settlement:
    return Settlement()


def later(settled: Settlement, pending: PendingReceipt, outcome: Receipt | EhrfastError) -> threading.Timer:
    timer = threading.Timer(0.02, settle, (settled, [(pending, outcome)]))
    timer.start()
    return timer


def test_a_promise_is_open_until_it_is_settled(settled: Settlement) -> None:
    pending = PendingReceipt(settled)
    assert (pending.done(), pending.applied(), repr(pending)) == (False, False, "PendingReceipt(pending)")
    for timeout in (0, 0.01):
        with pytest.raises(UnavailableError) as timed_out:
            pending.result(timeout)
        assert timed_out.value.code == "receipt.timeout"
    settle(settled, [(pending, APPLIED)])
    assert (pending.done(), pending.applied(), repr(pending)) == (True, True, "PendingReceipt(settled)")
    assert pending.result(0) is APPLIED


def test_a_failed_call_is_a_receipt_to_outcome_and_an_error_to_result(settled: Settlement) -> None:
    pending = PendingReceipt(settled)
    settle(settled, [(pending, FAILED)])
    assert pending.outcome(0) is FAILED
    assert not pending.applied()
    with pytest.raises(DeniedError) as denied:
        pending.result(0)
    assert denied.value.code == "records.not_permitted"


def test_a_refusal_is_raised_by_both(settled: Settlement) -> None:
    pending = PendingReceipt(settled)
    settle(settled, [(pending, refusal("transaction.expired"))])
    for ask in (pending.outcome, pending.result):
        with pytest.raises(ConflictError) as refused:
            ask(0)
        assert refused.value.code == "transaction.expired"


def test_threads_that_wait_are_woken_by_one_settlement(settled: Settlement) -> None:
    promises = [PendingReceipt(settled) for _ in range(8)]
    got: list[Receipt] = []
    threads = [threading.Thread(target=lambda one=one: got.append(one.result(30))) for one in promises]
    for thread in threads:
        thread.start()
    settle(settled, [(promise, APPLIED) for promise in promises])
    for thread in threads:
        thread.join()
    assert got == [APPLIED] * 8


def test_callbacks_run_once_on_the_settling_thread_and_at_once_when_settled(settled: Settlement) -> None:
    pending = PendingReceipt(settled)
    seen: list[tuple[PendingReceipt, int]] = []
    for _ in range(2):
        pending.add_done_callback(lambda done: seen.append((done, threading.get_ident())))
    assert seen == []
    timer = later(settled, pending, APPLIED)
    timer.join()
    assert seen == [(pending, timer.ident)] * 2
    pending.add_done_callback(lambda done: seen.append((done, threading.get_ident())))
    assert seen[2:] == [(pending, threading.get_ident())]


def test_a_callback_may_ask_for_other_promises_of_the_same_block(settled: Settlement) -> None:
    first, second = PendingReceipt(settled), PendingReceipt(settled)
    seen: list[Receipt] = []
    first.add_done_callback(lambda _: seen.append(second.result(0)))
    settle(settled, [(first, APPLIED), (second, APPLIED)])
    assert seen == [APPLIED]


def test_a_callback_that_fails_stops_neither_the_others_nor_the_chain(
    settled: Settlement, caplog: pytest.LogCaptureFixture
) -> None:
    promises = [PendingReceipt(settled) for _ in range(2)]
    seen: list[PendingReceipt] = []

    def fails(_: PendingReceipt) -> None:
        raise RuntimeError("Zyxwvutmark")

    for promise in promises:
        promise.add_done_callback(fails)
        promise.add_done_callback(seen.append)
    with caplog.at_level(logging.WARNING):
        settle(settled, [(promise, APPLIED) for promise in promises])
    assert seen == promises
    assert "RuntimeError" in caplog.text
    assert "Zyxwvutmark" not in caplog.text


def test_it_can_be_awaited_before_and_after_it_is_settled(settled: Settlement) -> None:
    pending = PendingReceipt(settled)

    async def wait() -> list[Receipt]:
        timer = later(settled, pending, APPLIED)
        before = await asyncio.gather(*(asyncio.wait_for(_await(pending), 30) for _ in range(3)))
        timer.join()
        return [*before, await pending]

    assert asyncio.run(wait()) == [APPLIED] * 4


def test_awaiting_a_failed_call_raises_its_code(settled: Settlement) -> None:
    pending = PendingReceipt(settled)
    settle(settled, [(pending, FAILED)])
    with pytest.raises(DeniedError):
        asyncio.run(_await(pending))


def test_a_loop_that_gave_up_waiting_and_closed_harms_nobody(settled: Settlement) -> None:
    left, other = PendingReceipt(settled), PendingReceipt(settled)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_await(left), 0.01)

    asyncio.run(give_up())
    seen: list[PendingReceipt] = []
    other.add_done_callback(seen.append)
    settle(settled, [(left, APPLIED), (other, APPLIED)])
    assert seen == [other]
    assert left.result(0) is APPLIED


async def _await(pending: PendingReceipt) -> Receipt:
    return await pending


def test_many_promises_keep_their_order_and_share_one_timeout(settled: Settlement) -> None:
    items = [PendingReceipt(settled) for _ in range(3)]
    promises = PendingReceipts(items)
    assert (len(promises), promises[1], promises[1:]) == (3, items[1], items[1:])
    settle(settled, [(items[0], APPLIED)])
    with pytest.raises(UnavailableError) as timed_out:
        promises.results(0.01)
    assert timed_out.value.code == "receipt.timeout"
    settle(settled, [(items[1], FAILED), (items[2], APPLIED)])
    with pytest.raises(DeniedError):
        promises.results()
    assert PendingReceipts([items[0], items[2]]).results(0) == [APPLIED, APPLIED]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("signature.invalid", VerificationError),
        ("transaction.replayed", ConflictError),
        ("transaction.expired", ConflictError),
        ("contract.unknown", NotFoundError),
        ("clock.unsteady", UnavailableError),
        ("chain.closed", UnavailableError),
        ("transaction.wrong_chain", InvalidInputError),
        ("transaction.malformed", InvalidInputError),
    ],
)
def test_a_refusal_is_of_the_kind_its_code_says(code: str, kind: type[EhrfastError]) -> None:
    error = refusal(code)
    assert (type(error), error.code) == (kind, code)
