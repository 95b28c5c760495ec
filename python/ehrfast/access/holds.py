"""Legal holds: what one covers is neither erased nor pruned while it stands.

A hold is a random id, a target and a reason from a closed list on the chain; why it was placed is told elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ehrfast._core import random_bytes
from ehrfast.access.erase import RECORD, SUBJECT, RecordsCall
from ehrfast.chain.chain import Chain
from ehrfast.errors import CorruptionError, InvalidInputError, NotFoundError
from ehrfast.keys.subjects import Subjects
from ehrfast.model.identity import Identity, parse_id
from ehrfast.records.index.memory import RecordIndex


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that stands.

    Args:
        id: random, hex.
        kind: ``record`` or ``subject``.
        target: random id of the record or subject, hex.
        reference: what this node calls it, None when it no longer knows.
        since_ms: block time.
    """

    id: str
    kind: str
    target: str
    reference: str | None = field(repr=False)
    reason: str
    since_ms: int


class Holds:
    """The holds of one custodian.

    Args:
        catch_up: waits until the index has seen everything published.
    """

    def __init__(
        self,
        chain: Chain,
        subjects: Subjects,
        index: RecordIndex,
        organisation: bytes,
        call: RecordsCall,
        catch_up: Callable[[], None],
    ) -> None:
        self._catch_up = catch_up
        self._chain = chain
        self._subjects = subjects
        self._index = index
        self._organisation = organisation
        self._call = call

    def add(
        self, *, reason: str, record: str | None = None, patient: str | None = None, by: Identity | None = None
    ) -> Hold:
        """Places a hold on one record, or on a patient and all their records.

        Args:
            reason: litigation, investigation, regulator, complaint, safety or other.
            by: an organisation admin or auditor; the administrator by default.

        Raises:
            NotFoundError: ``record.unknown``, ``patient.unknown``.
            DeniedError: ``records.not_permitted``.
            InvalidInputError: ``records.unknown_reason``, ``hold.one_target``.
        """
        if (record is None) == (patient is None):
            raise InvalidInputError("hold.one_target")
        self._catch_up()
        identifier = random_bytes(16)
        kind, target = (RECORD, self._record(record)) if record is not None else (SUBJECT, self._patient(patient or ""))
        arguments: dict[str, object] = {"hold": identifier, "kind": kind, "target": target, "reason": reason}
        self._call("hold", arguments, (), by)
        return self._read(identifier)

    def release(self, hold: str, *, by: Identity | None = None) -> None:
        """Ends a hold.

        Raises:
            NotFoundError: ``records.no_hold``.
            ConflictError: ``records.hold_released``.
        """
        self._call("release", {"hold": parse_id(hold, code="hold.malformed")}, (), by)

    def standing(self) -> list[Hold]:
        """Every hold that stands, in the order they were placed."""
        self._catch_up()
        ids = self._chain.view("records", "holds", {"custodian": self._organisation})
        return [self._read(each) for each in (ids if isinstance(ids, tuple) else ())]

    def _read(self, identifier: bytes) -> Hold:
        row = self._chain.view("records", "hold_of", {"hold": identifier})
        if not (isinstance(row, tuple) and len(row) == 9):
            raise CorruptionError("state.malformed_row")
        kind, target, _, _, reason, _, since_ms, _, _ = row
        if kind == RECORD:
            reference = self._index.reference_of(target)
        else:
            subject = self._subjects.by_id(target)
            reference = None if subject is None else subject.reference
        return Hold(identifier.hex(), kind, target.hex(), reference, reason, since_ms)

    def _record(self, reference: str) -> bytes:
        entry = self._index.current(reference)
        if entry is None:
            raise NotFoundError("record.unknown")
        return entry.record_id

    def _patient(self, reference: str) -> bytes:
        subject = self._subjects.known(reference)
        if subject is None or subject.id == self._subjects.custodian:
            raise NotFoundError("patient.unknown")
        return subject.id
