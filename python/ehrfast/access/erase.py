"""Erasing: what is taken away is marked on the chain first, then goes from this node: log, keys, index, memory.

Before: a record or a patient that no legal hold covers. After: bytes in which no key that the node still holds opens
anything of it. Invariant: the key store's applied erasure height covers an erasure only once that is so, and the next
open finishes what a crash cut off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ehrfast._core import KeyStore, SealedPack, state_path, wrap_kids
from ehrfast.chain.chain import Chain
from ehrfast.errors import ConflictError, CorruptionError, NotFoundError, UnavailableError
from ehrfast.keys.signing import IDENTITY_KIND, SigningKeys
from ehrfast.keys.subjects import Subjects
from ehrfast.model.identity import Identity
from ehrfast.model.record import RecordRow
from ehrfast.records.classes import CLASSES, INDEX
from ehrfast.records.index.memory import RecordIndex
from ehrfast.records.seal import seal_again

RECORD: Final = "record"
SUBJECT: Final = "subject"
_ROWS: Final = ("records", "put")
_ATTEMPTS: Final = 5
"""Versions may be written between the asking and the erasing; each time it is asked anew."""


RecordsCall = Callable[[str, dict[str, object], tuple[SealedPack, ...], Identity | None], None]
"""Signs and runs a method of ``records``, as the administrator by default, and waits for its receipt."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure as the chain has it.

    Args:
        number: from 1.
        kind: ``record`` or ``subject``.
        target: random id of the record or the subject.
        height: of its block.
        manifests: places of the manifests that named the record.
    """

    number: int
    kind: str
    target: bytes
    height: int
    time_ms: int
    manifests: tuple[tuple[int, bytes, int], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure took away here.

    Args:
        kind: ``record`` or ``subject``.
        id: random id of what was erased, hex.
        height: of the block that records it.
        items: sealed items and wraps replaced by their digests.
        transactions, values: the same of transactions and of values in write sets.
        segments: files written anew under fresh keys.
        keys: entries of the key store that were forgotten, segment keys not counted.
        identities: signing identities of the patient that went with them.
        backup_keys_days: for how long backups made before may still hold keys, at most.
        state: when the state database and its key go: ``at close``, or at the next open after a crash.
    """

    kind: str
    id: str
    height: int
    items: int
    transactions: int
    values: int
    segments: int
    keys: int
    identities: int
    backup_keys_days: int
    state: str = "at close"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an erasure would take, before it does."""

    kind: str
    id: str
    records: int
    versions: int
    manifests: int


class Edits:
    """Changes to the block log, gathered over several erasures."""

    def __init__(self) -> None:
        self.transactions: list[tuple[int, int]] = []
        self.writes: list[tuple[int, bytes]] = []
        self.records: list[tuple[int, int, int]] = []
        self.subjects: list[tuple[int, int, int, bytes, bytes]] = []

    @property
    def heights(self) -> set[int]:
        """Blocks in which items go."""
        return {each[0] for each in self.records} | {each[0] for each in self.subjects}


class Eraser:
    """Carries out on this node what the chain says was erased. Thread-safe.

    Args:
        organisation: the custodian; what others erase is theirs to carry out.
        drop_blob: removes a sealed item that lies outside the log, by its digest; one that is not there is no fault.
        retention_days: how long the keys of a backup live.
    """

    def __init__(
        self,
        chain: Chain,
        keys: KeyStore,
        subjects: Subjects,
        signing_keys: SigningKeys,
        organisation: bytes,
        drop_blob: Callable[[bytes], None],
        *,
        retention_days: int,
    ) -> None:
        self._drop_blob = drop_blob
        self._retention_days = retention_days
        self._chain = chain
        self._keys = keys
        self._subjects = subjects
        self._signing_keys = signing_keys
        self._organisation = organisation
        self._lock = threading.Lock()

    def all(self) -> list[Erasure]:
        """Every erasure of this custodian, in order."""
        return self._after(-1)

    def pending(self) -> list[Erasure]:
        """Those not carried out here."""
        return self._after(self._keys.applied_erasure_height)

    def _after(self, height: int) -> list[Erasure]:
        count = self._chain.view("records", "erasures", {})
        found: list[Erasure] = []
        for number in range(count if isinstance(count, int) else 0, 0, -1):
            row = self._chain.view("records", "erasure", {"number": number})
            if not (isinstance(row, tuple) and len(row) == 7):
                raise CorruptionError("state.malformed_row")
            kind, target, custodian, _, at, time_ms, manifests = row
            if at <= height:
                break
            if custodian == self._organisation:
                found.append(Erasure(number, kind, target, at, time_ms, manifests))
        return found[::-1]

    def apply(self) -> ErasureReport | None:
        """Carries out what is pending, all in one rewriting; the report is of the last one. None when nothing was.

        Raises:
            UnavailableError: the files could not be written; the next open carries on.
        """
        with self._lock:
            pending = self.pending()
            if not pending:
                return None
            last = pending[-1]
            edits = self._edits(pending)
            subjects = [each.target for each in pending if each.kind == SUBJECT]
            identities = [name for subject in subjects for name in self._identities_of(subject)]
            entries = [entry for subject in subjects for entry in self._subjects.entries_of(subject)]
            forget = [*entries, *((IDENTITY_KIND, name) for name in identities)]
            for digest in self._outside(edits):  # before the keys: cut off here, the next open does it again
                self._drop_blob(digest)
            segments, _ = self._chain.segments.rewrite(
                transactions=edits.transactions,
                writes=edits.writes,
                records=edits.records,
                subjects=edits.subjects,
                forget=forget,
                applied_erasure_height=last.height,
            )
            for subject in subjects:
                self._subjects.forget(subject)
            self._chain.forget_recent()
            return ErasureReport(
                kind=last.kind,
                id=last.target.hex(),
                height=last.height,
                items=len(edits.records) + len(edits.subjects),
                transactions=len(edits.transactions),
                values=len(edits.writes),
                segments=segments,
                keys=len(forget),
                identities=len(identities),
                backup_keys_days=self._retention_days,
            )

    def _outside(self, edits: Edits) -> set[bytes]:
        """Digests of the items that go and are not in the log; what others can open too is not among them."""
        found = set()
        places: list[tuple[int, int, int, bytes | None]] = [(*each, None) for each in edits.records]
        places += [(height, pack, position, subject) for height, pack, position, subject, _ in edits.subjects]
        for height, pack, position, subject in places:
            stored = self._chain.segments.read(height).stored_pack(pack)
            wraps = stored.wraps(position)
            alone = subject is None or wraps is None or {kid[0] for kid in wrap_kids(wraps)} == {subject}
            if stored.item(position) is None and alone:
                found.add(stored.item_digest(position))
        return found

    def _identities_of(self, subject: bytes) -> list[bytes]:
        found = []
        for held in self._signing_keys.all():
            row = self._chain.view("identity", "identity", {"id": held.id})
            if isinstance(row, tuple) and row[4] == subject:
                found.append(held.id)
        return found

    def _edits(self, pending: Sequence[Erasure]) -> Edits:
        edits = Edits()
        subjects = {each.target for each in pending if each.kind == SUBJECT}
        until: dict[bytes, int] = {}
        first = 0 if subjects else last_height(pending)
        records: set[tuple[bytes, int]] = set()
        for each in pending:
            if each.kind == SUBJECT:
                for class_ in CLASSES:
                    until[state_path("records", ("epoch", each.target, self._organisation, class_))] = each.height
                continue
            for version, row in self._rows(each.target):
                until[state_path("records", (each.target, version))] = each.height
                records.add((each.target, version))
                first = min(first, row.height)
                if row.pack_root is not None:
                    edits.records += places_of(self._chain, row.height, row.pack_root, row.position)
            for height, pack_root, position in each.manifests:
                edits.records += self._manifests(height, pack_root, position)
        wraps, writes = self._chain.segments.find_traces(
            first,
            last_height(pending) + 1,
            subjects=sorted(subjects),
            custodian=self._organisation,
            paths=sorted(until),
        )
        edits.subjects = [(*found, self._organisation) for found in wraps]
        edits.writes = [(height, path) for height, path in writes if height < until[path]]
        for height in sorted(edits.heights):
            edits.transactions += self._transactions(height, subjects, records)
        return edits

    def _rows(self, record: bytes) -> list[tuple[int, RecordRow]]:
        current = self._chain.view("records", "current", {"id": record})
        rows = []
        for version in range(1, (current if isinstance(current, int) else 0) + 1):
            row = RecordRow.of(self._chain.view("records", "row", {"id": record, "version": version}))
            if row is None:
                raise CorruptionError("state.malformed_row")
            rows.append((version, row))
        return rows

    def _manifests(self, height: int, pack_root: bytes, position: int) -> list[tuple[int, int, int]]:
        """A manifest's place, unless it is gone, or something else lies there: whoever signs may name any place."""
        frame = self._chain.segments.read(height)
        wraps = frame.stored_pack(pack_root).wraps(position) if pack_root in frame.pack_roots else None
        kids = [] if wraps is None else wrap_kids(wraps)
        if not kids or any((kid[1], kid[2]) != (self._organisation, INDEX) for kid in kids):
            return []
        return places_of(self._chain, height, pack_root, position)

    def _transactions(
        self, height: int, subjects: set[bytes], records: set[tuple[bytes, int]]
    ) -> list[tuple[int, int]]:
        """Those whose every row is erased. One that also carries records of others stays: ids, codes and commitments
        whose keys are gone tell nothing."""
        found = []
        for number, transaction in enumerate(self._chain.segments.read(height).decoded_transactions()):
            if transaction is None or (transaction.contract, transaction.method) != _ROWS:
                continue
            rows = transaction.args.get(1)
            if not isinstance(rows, tuple) or not rows:
                continue
            if all(row[2] in subjects or (row[0], row[1]) in records for row in rows):
                found.append((height, number))
        return found


class Erasing:
    """What the node's `erase_…` do: the call on the chain, then the carrying out.

    Args:
        forgotten: told the references that are gone.
    """

    def __init__(
        self,
        chain: Chain,
        subjects: Subjects,
        index: RecordIndex,
        eraser: Eraser,
        call: RecordsCall,
        catch_up: Callable[[], None],
        forgotten: Callable[[Sequence[str]], None],
    ) -> None:
        self._chain = chain
        self._subjects = subjects
        self._index = index
        self._eraser = eraser
        self._call = call
        self._catch_up = catch_up
        self._forgotten = forgotten

    def plan_record(self, reference: str) -> Plan:
        """What `record` would take.

        Raises:
            NotFoundError: ``record.unknown``.
        """
        versions = self._index.versions(reference)
        if not versions:
            raise NotFoundError("record.unknown")
        manifests = self._index.listed_with(reference)
        return Plan(RECORD, versions[0].record_id.hex(), 1, len(versions), len(manifests))

    def plan_patient(self, reference: str) -> Plan:
        """What `patient` would take.

        Raises:
            NotFoundError: ``patient.unknown``.
        """
        subject = self._subjects.known(reference)
        if subject is None:
            raise NotFoundError("patient.unknown")
        references = self._index.of_subject(subject.id)
        versions = [entry for each in references for entry in self._index.versions(each)]
        manifests = {entry.listed for entry in versions}
        return Plan(SUBJECT, subject.id.hex(), len(references), len(versions), len(manifests))

    def record(self, reference: str, *, by: Identity | None) -> ErasureReport:
        """Erases one record, all versions."""
        self._chain.require_writable()
        for attempt in range(_ATTEMPTS):
            self._catch_up()
            versions = self._index.versions(reference)
            if not versions:
                raise NotFoundError("record.unknown")
            listed = self._index.listed_with(reference)
            rows = tuple(
                (entry.record_id, entry.version, entry.reference, full_url, entry.digest)
                for others in listed.values()
                for entry, full_url in others
            )
            subject = self._subjects.by_id(versions[0].subject)
            if subject is None:
                raise NotFoundError("record.unknown")
            packs = (seal_again(self._chain.chain_id, subject, rows, self._subjects),) if rows else ()
            arguments = {
                "record": versions[0].record_id,
                "version": versions[-1].version,
                "manifests": tuple(listed),
            }
            try:
                self._call("erase", arguments, packs, by)
            except ConflictError as error:
                if error.code != "records.version_conflict" or attempt + 1 == _ATTEMPTS:
                    raise
                continue
            break
        return self._carry_out([reference])

    def patient(self, reference: str, *, by: Identity | None) -> ErasureReport:
        """Erases a patient: all records, keys, references, and what the node holds of their signing identities."""
        self._chain.require_writable()
        self._catch_up()
        subject = self._subjects.known(reference)
        if subject is None or subject.id == self._subjects.custodian:
            raise NotFoundError("patient.unknown")
        references = [reference, *self._index.of_subject(subject.id)]
        self._call("erase_subject", {"subject": subject.id, "classes": CLASSES}, (), by)
        return self._carry_out(references)

    def _carry_out(self, references: Sequence[str]) -> ErasureReport:
        self._catch_up()
        report = self._eraser.apply()
        self._forgotten(references)
        if report is None:
            raise UnavailableError("erasure.carried_out_elsewhere")
        return report


def last_height(pending: Sequence[Erasure]) -> int:
    """Height of the newest of them."""
    return max(each.height for each in pending)


def places_of(chain: Chain, first: int, pack_root: bytes, position: int) -> list[tuple[int, int, int]]:
    """(height, number of the pack, position) wherever the log has an item: a pack travels again with each re-wrap of
    one of its records."""
    again = chain.view("records", "again", {"pack": pack_root})
    places = []
    for height in dict.fromkeys((first, *(again if isinstance(again, tuple) else ()))):
        roots = chain.segments.read(height).pack_roots
        places += [(height, number, position) for number, root in enumerate(roots) if root == pack_root]
    return places


