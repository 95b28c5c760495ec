"""Audit before answer: readers share appends, and no reader returns before its own events are durable."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ehrfast.access import audit
from ehrfast.access.audit import AuditDraft, AuditWriter
from ehrfast.errors import UnavailableError


class Recording(AuditWriter):
    """An audit writer whose pages are kept here instead of on a chain."""

    def __init__(self, fault: BaseException | None = None) -> None:
        chain: Any = SimpleNamespace(require_writable=lambda: None)
        nothing: Any = None
        super().__init__(chain, nothing, nothing, nothing)
        self.pages: list[list[AuditDraft]] = []
        self.fault = fault
        self.gate = threading.Event()
        self.entered = threading.Event()

    def _append_page(self, page: Any, lane: int) -> None:
        self.entered.set()
        self.gate.wait(10)
        if self.fault is not None:
            raise self.fault
        self.pages.append(list(page))


def drafts(count: int) -> list[AuditDraft]:
    return [AuditDraft(None, b"{}") for _ in range(count)]  # type: ignore[arg-type]


def run(writer: Recording, sizes: list[int]) -> list[BaseException | None]:
    """One reader a size; the first is held until all others wait behind it."""
    outcomes: list[BaseException | None] = [None] * len(sizes)
    mine = [drafts(size) for size in sizes]

    def read(number: int) -> None:
        try:
            writer.record(mine[number], lane=2)
            kept = {id(draft) for page in writer.pages for draft in page}
            assert all(id(draft) in kept for draft in mine[number])
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(sizes))]
    threads[0].start()
    assert writer.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(writer._queue) < len(sizes) - 1:
        threading.Event().wait(0.001)
    writer.gate.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return outcomes


def test_readers_behind_one_append_share_the_next() -> None:
    writer = Recording()
    assert run(writer, [1] * 9) == [None] * 9
    assert [len(page) for page in writer.pages] == [1, 8]


def test_a_reader_that_did_not_fit_leads_again_until_its_own_events_are_kept() -> None:
    writer = Recording()
    most = audit.MAX_EVENTS
    assert run(writer, [1, most, most, 1, most - 1, 3]) == [None] * 6
    assert sum(len(page) for page in writer.pages) == 1 + most + most + 1 + most - 1 + 3


@pytest.mark.parametrize("fault", [UnavailableError("chain.stopped"), ZeroDivisionError()])
def test_no_reader_is_let_through_when_the_append_fails(fault: BaseException) -> None:
    outcomes = run(Recording(fault), [1, 1, 1])
    assert None not in outcomes
    refused = [outcome for outcome in outcomes if isinstance(outcome, UnavailableError)]
    assert len(refused) == 3 - 2 * isinstance(fault, ZeroDivisionError)
