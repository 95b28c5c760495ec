"""The gate: who asks, whether the rule permits it, and the opening that follows; nothing reads a record but through it.

Order of a read: principal, decision, audit durable, opening. A hidden record answers like an absent one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ehrfast.access.audit import AuditDraft, AuditWriter
from ehrfast.chain.chain import Chain
from ehrfast.chain.subscribe import Subscription
from ehrfast.errors import CorruptionError, DeniedError, NotFoundError
from ehrfast.fhir.audit_event import Interaction, audit_event
from ehrfast.keys.subjects import Subjects
from ehrfast.model.decision import Decision
from ehrfast.model.record import ERASED, PRUNED, RecordRow
from ehrfast.policy.treating import AccessRequest, decide, may_read_anything
from ehrfast.records.blobs.store import BlobStore
from ehrfast.records.index.memory import Entry, RecordIndex
from ehrfast.records.open import OpenedRecord, open_sealed
from ehrfast.records.pieces import PieceReader, is_in_pieces
from ehrfast.records.placement import BLOB

AUDIT_LANE: Final = 2


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, as the chain knows it now.

    Args:
        identity: id of the asker.
        roles: roles at the custodian, valid now.
        subject: the patient the asker is, or None.
    """

    identity: bytes
    roles: frozenset[str]
    subject: bytes | None


@dataclass(frozen=True, slots=True)
class _InPieces:
    digest: bytes
    wraps: bytes


class Gate:
    """Decides, audits and opens for the sessions of one node."""

    def __init__(
        self,
        chain: Chain,
        subjects: Subjects,
        index: RecordIndex,
        follower: Subscription,
        audit: AuditWriter,
        blobs: BlobStore,
    ) -> None:
        self.chain = chain
        self._blobs = blobs
        self.subjects = subjects
        self.index = index
        self._follower = follower
        self._audit = audit

    def catch_up(self) -> None:
        """Waits until the index has seen everything published: reads see what was just written."""
        self._follower.wait(self.chain.published.height)

    def principal(self, identity: bytes) -> Principal:
        """Reads the asker's standing from the published state.

        Raises:
            DeniedError: ``identity.unknown``.
        """
        row = self.chain.view("identity", "identity", {"id": identity})
        if not isinstance(row, tuple):
            raise DeniedError("identity.unknown", {"identity": identity.hex()})
        roles = self.chain.view(
            "identity", "roles", {"identity": identity, "organisation": self.subjects.custodian}
        )
        listed = frozenset(str(role) for role in roles) if isinstance(roles, tuple) else frozenset()
        subject = row[4] if "patient" in listed and isinstance(row[4], bytes) else None
        return Principal(identity, listed, subject)

    def require_reader(self, principal: Principal, purpose: str, interaction: Interaction) -> None:
        """Refuses openly whoever the rule could never let read; that reveals nothing of any record.

        Raises:
            DeniedError: ``access.not_a_reader``.
        """
        if not may_read_anything(principal.roles, principal.subject):
            self.audit_denied(principal, purpose, interaction, None, "role.not_a_reader")
            raise DeniedError("access.not_a_reader")

    def decide(self, principal: Principal, purpose: str, entry: Entry) -> Decision:
        """Asks the rule about one record."""
        return decide(
            AccessRequest(
                roles=principal.roles,
                own_subject=principal.subject,
                subject=entry.subject,
                custodian=self.subjects.custodian,
                record_class=entry.record_class,
                purpose=purpose,
            )
        )

    def permitted(self, principal: Principal, purpose: str, references: Sequence[str]) -> list[Entry]:
        """The newest versions the asker may know of, in order."""
        verdicts: dict[tuple[bytes, str], bool] = {}
        entries = []
        for reference in references:
            entry = self.index.current(reference)
            if entry is None:
                continue
            name = (entry.subject, entry.record_class)
            if name not in verdicts:
                verdicts[name] = self.decide(principal, purpose, entry).permits
            if verdicts[name]:
                entries.append(entry)
        return entries

    def find(
        self, principal: Principal, purpose: str, reference: str, version: int | None, interaction: Interaction
    ) -> Entry:
        """The version asked for, when it exists and the rule permits it.

        Raises:
            NotFoundError: ``record.unknown`` in both other cases.
        """
        versions = self.index.versions(reference)
        found = [entry for entry in versions if version is None or entry.version == version]
        entry = found[-1] if found else None
        decision = None if entry is None else self.decide(principal, purpose, entry)
        if entry is None or decision is None or not decision.permits:
            reason = "record.unknown" if decision is None else decision.reason
            self.audit_denied(principal, purpose, interaction, entry, reason)
            raise NotFoundError("record.unknown")
        return entry

    def row(self, entry: Entry) -> RecordRow:
        """What the published state says of a version."""
        arguments = {"id": entry.record_id, "version": entry.version}
        row = RecordRow.of(self.chain.view("records", "row", arguments))
        if row is None:
            raise CorruptionError("state.malformed_row", {"height": entry.height})
        return row

    def open(self, entry: Entry, row: RecordRow, *, disclosing: bool = False) -> OpenedRecord:
        """The plaintext, checked against the commitment in the state.

        Of a Binary sealed in pieces it is what describes the content, and its opening key only when ``disclosing``,
        for that takes reading all of it.

        Raises:
            NotFoundError: ``record.deleted``, ``record.erased``, ``record.pruned``; asked by whoever may read it, so
                that it reveals nothing.
            CorruptionError: ``blob.missing``, ``blob.damaged``, or what was opened is not what was committed to.
        """
        found = self._find_item(entry, row)
        if isinstance(found, tuple):
            item, wraps = found
        else:
            reader = self._read_pieces(found, entry, row)
            if disclosing:
                for _ in reader.pieces():
                    pass
            return OpenedRecord(reader.head, reader.opening_key or b"")
        return open_sealed(
            item,
            wraps,
            row,
            self.subjects,
            origin=self.chain.chain_id,
            record_id=entry.record_id,
            version=entry.version,
        )

    def open_pieces(self, entry: Entry, row: RecordRow) -> PieceReader | OpenedRecord:
        """A reader of a content in pieces, or the plaintext of what was sealed whole."""
        found = self._find_item(entry, row)
        return self.open(entry, row) if isinstance(found, tuple) else self._read_pieces(found, entry, row)

    def _find_item(self, entry: Entry, row: RecordRow) -> tuple[bytes, bytes] | _InPieces:
        if row.has(ERASED):
            raise NotFoundError("record.erased")
        if row.pack_root is None:
            raise NotFoundError("record.deleted")
        gone = NotFoundError("record.pruned" if row.has(PRUNED) else "record.erased")
        try:
            item, digest, wraps = self.chain.read_part(
                row.height, row.pack_root, row.position, wraps_height=row.wraps_height
            )
        except NotFoundError as error:
            if error.code != "log.erased":
                raise
            raise gone from None
        if item is not None:
            return item, wraps
        if digest is None or row.place != BLOB or row.has(PRUNED):
            raise gone
        try:
            if is_in_pieces(self._blobs.get_range(digest, 0, 1)):
                return _InPieces(digest, wraps)
            return self._blobs.get(digest), wraps
        except CorruptionError as error:
            if error.code != "blob.missing":
                raise
            now = self.row(entry)  # it may have been let go since the row was looked at
            if now.has(PRUNED) or now.has(ERASED):
                raise NotFoundError("record.pruned" if now.has(PRUNED) else "record.erased") from None
            raise

    def _read_pieces(self, found: _InPieces, entry: Entry, row: RecordRow) -> PieceReader:
        subject = self.subjects.by_id(row.subject)
        if subject is None:
            raise NotFoundError("record.unknown")
        return PieceReader(
            self._blobs,
            found.digest,
            found.wraps,
            row,
            self.subjects.key(subject, row.record_class, row.epoch),
            origin=self.chain.chain_id,
            record_id=entry.record_id,
            version=entry.version,
        )

    def audit_access(
        self, principal: Principal, purpose: str, interaction: Interaction, entries: Sequence[Entry], *, counted: bool
    ) -> None:
        """Makes one event per patient concerned durable; called before anything is answered."""
        by_subject: dict[bytes, list[Entry]] = {}
        for entry in entries:
            by_subject.setdefault(entry.subject, []).append(entry)
        if not by_subject:
            by_subject[self.subjects.custodian] = []
        drafts = []
        for subject_id, touched in by_subject.items():
            subject = self.subjects.by_id(subject_id) or self.subjects.of(None)
            event = audit_event(
                interaction,
                recorded_ms=self.chain.clock.now_ms(),
                identity=principal.identity,
                purpose=purpose,
                outcome="success",
                subject=None if subject_id == self.subjects.custodian else subject_id,
                entities=[] if counted else [(entry.record_id, entry.version) for entry in touched],
                count=len(touched) if counted else None,
            )
            drafts.append(AuditDraft(subject, event))
        self._audit.record(drafts, lane=AUDIT_LANE)

    def audit_operation(self, identity: bytes, reason: str) -> None:
        """Makes durable, in the organisation's own log, what an operator has decided."""
        event = audit_event(
            "operation",
            recorded_ms=self.chain.clock.now_ms(),
            identity=identity,
            purpose="HOPERAT",
            outcome="success",
            subject=None,
            entities=[],
            reason=reason,
        )
        self._audit.record([AuditDraft(self.subjects.of(None), event)], lane=AUDIT_LANE)

    def audit_denied(
        self, principal: Principal, purpose: str, interaction: Interaction, entry: Entry | None, reason: str
    ) -> None:
        """Makes a refused attempt durable, in the patient's log when a patient is concerned."""
        subject = None if entry is None else self.subjects.by_id(entry.subject)
        concerned = subject is not None and subject.id != self.subjects.custodian
        event = audit_event(
            interaction,
            recorded_ms=self.chain.clock.now_ms(),
            identity=principal.identity,
            purpose=purpose,
            outcome="denied",
            subject=subject.id if subject is not None and concerned else None,
            entities=[] if entry is None else [(entry.record_id, entry.version)],
            reason=reason,
        )
        self._audit.record([AuditDraft(subject or self.subjects.of(None), event)], lane=AUDIT_LANE)
