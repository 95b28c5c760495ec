"""The audit trail of reads: an event is sealed, signed, ordered and durable before the read it belongs to answers.

Readers that come together share one transaction: the first goes at once, the others while it is under way go next.
Sequences per writing key are consecutive, so a missing event is visible to everyone who reads the chain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ehrfast._core import SigningKey, blake3_digest, random_bytes
from ehrfast.access.sign import sign_call
from ehrfast.chain.chain import Chain
from ehrfast.errors import ConflictError, EhrfastError, UnavailableError
from ehrfast.keys.subjects import Subject, Subjects
from ehrfast.records.classes import AUDIT
from ehrfast.records.seal import DIGEST_BYTES, Draft, seal

MAX_EVENTS: Final = 256


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """An AuditEvent about to be sealed.

    Args:
        subject: whose log it belongs to; the custodian's own when no patient is concerned.
        content: FHIR JSON.
    """

    subject: Subject
    content: bytes = field(repr=False)


@dataclass(slots=True)
class _Ticket:
    drafts: Sequence[AuditDraft]
    lane: int
    done: bool = False
    error: EhrfastError | None = None


class AuditWriter:
    """Appends events under one key. Thread-safe.

    Args:
        chain: where they go.
        key: the organisation's gateway key.
        last_sequence: asks the chain for the last sequence of a key.
    """

    def __init__(
        self, chain: Chain, subjects: Subjects, key: SigningKey, last_sequence: Callable[[bytes], int]
    ) -> None:
        self._chain = chain
        self._subjects = subjects
        self._key = key
        self._last_sequence = last_sequence
        self._sequence: int | None = None
        self._condition = threading.Condition()
        self._queue: list[_Ticket] = []
        self._busy = False

    def record(self, drafts: Sequence[AuditDraft], *, lane: int) -> None:
        """Returns once every draft is durable and published.

        Raises:
            UnavailableError: the chain cannot write; the read must not answer.
        """
        if not drafts:
            return
        self._chain.require_writable()
        ticket = _Ticket(drafts, lane)
        with self._condition:
            self._queue.append(ticket)
        while not ticket.done:
            with self._condition:
                while self._busy and not ticket.done:
                    self._condition.wait()
                mine = [] if ticket.done else self._take()
            if mine:
                self._lead(mine)
        if ticket.error is not None:
            raise ticket.error

    def _take(self) -> list[_Ticket]:
        self._busy = True
        taken: list[_Ticket] = []
        size = 0
        while self._queue and (not taken or size + len(self._queue[0].drafts) <= MAX_EVENTS):
            taken.append(self._queue.pop(0))
            size += len(taken[-1].drafts)
        return taken

    def _lead(self, tickets: list[_Ticket]) -> None:
        """Appends for everybody in the list. Whatever goes wrong, nobody's read is let through as audited."""
        error: EhrfastError | None = UnavailableError("audit.failed")
        try:
            self._append([draft for ticket in tickets for draft in ticket.drafts], min(t.lane for t in tickets))
            error = None
        except EhrfastError as failure:
            error = failure
        finally:
            with self._condition:
                for ticket in tickets:
                    ticket.done, ticket.error = True, error
                self._busy = False
                self._condition.notify_all()

    def _append(self, drafts: Sequence[AuditDraft], lane: int) -> None:
        for start in range(0, len(drafts), MAX_EVENTS):
            page = drafts[start : start + MAX_EVENTS]
            try:
                self._append_page(page, lane)
            except ConflictError:  # a sequence or an epoch moved since we asked: ask again, once
                self._sequence = None
                for draft in page:
                    self._subjects.forget_epoch(draft.subject.id, AUDIT)
                self._append_page(page, lane)

    def _append_page(self, page: Sequence[AuditDraft], lane: int) -> None:
        if self._sequence is None:
            self._sequence = self._last_sequence(self._key.public_key)
        data = b"".join(draft.content for draft in page)
        sealed = seal(self._chain.chain_id, data, _drafts(page, self._subjects), self._subjects)
        arguments = {1: self._sequence + 1, 2: sealed.rows, **({3: sealed.epochs} if sealed.epochs else {})}
        transaction = sign_call(
            self._chain, self._key, "access", "append", arguments, numbered=True, packs=(sealed.pack,), lane=lane
        )
        self._chain.submit(transaction, (sealed.pack,)).result()
        self._sequence += 1


def _drafts(page: Sequence[AuditDraft], subjects: Subjects) -> list[Draft]:
    custodian = subjects.of(None)
    drafts = []
    start = 0
    for item in page:
        record_id = random_bytes(16)
        end = start + len(item.content)
        others = () if item.subject.id == custodian.id else (custodian,)
        drafts.append(
            Draft(
                reference=f"AuditEvent/{record_id.hex()}",
                record_id=record_id,
                version=1,
                record_class=AUDIT,
                subject=item.subject,
                start=start,
                end=end,
                digest=blake3_digest(item.content)[:DIGEST_BYTES],
                co_recipients=others,
            )
        )
        start = end
    return drafts
