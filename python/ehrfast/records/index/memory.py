"""The record index in memory: reference to versions, by type and by patient. Rebuilt from the manifests at every open.

Fed block by block in log order; a failed call leaves nothing here. Manifests of subjects whose keys are gone stay
closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ehrfast._core import SealedPack, StoredPack, Transaction, cbor_decode, open_record, wrap_kids
from ehrfast.errors import CorruptionError
from ehrfast.keys.subjects import Subjects
from ehrfast.model.block import PublishedBlock
from ehrfast.model.receipt import Receipt
from ehrfast.model.record import ERASED, RecordRow
from ehrfast.records.classes import AUDIT, INDEX
from ehrfast.records.seal import MANIFEST_AGAIN, MANIFEST_VERSION

_ROWS_ARGUMENT = {("records", "put"): 1, ("access", "append"): 2}
"""Contract and method to the number of the argument that lists the rows."""
_PRUNINGS = {("records", "prune"): True, ("records", "restore"): False}
"""Contract and method to whether the versions of its first argument go, or come back."""
_ROW_WIDTH = 9
_NO_DIGEST = b""
"""Of a record that the index knows without its manifest: no content equals it."""


ManifestPlace = tuple[int, bytes, int]
"""Where a manifest lies: height, pack root, position."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one record, as the index knows it; nothing of its content.

    Args:
        index: of the leaf in the log.
        position: of the item in its pack; with the index the order in which records came.
        listed: the manifest that names it; None for an audit event whose patient was erased.
    """

    reference: str = field(repr=False)
    record_id: bytes
    version: int
    subject: bytes
    record_class: str
    index: int
    height: int
    time_ms: int
    position: int
    digest: bytes = field(repr=False)
    listed: ManifestPlace | None = field(default=None, repr=False)

    @property
    def resource_type(self) -> str:
        """The FHIR type before the slash."""
        return self.reference.partition("/")[0]


class RecordIndex:
    """References, versions, types and patients of the records one custodian can open.

    Args:
        row_of: what the published state says of (record id, version).
    """

    def __init__(
        self, origin: str, subjects: Subjects, row_of: Callable[[bytes, int], RecordRow | None]
    ) -> None:
        self._origin = origin
        self._subjects = subjects
        self._row_of = row_of
        self._sorted = True
        self._lock = threading.Lock()
        self._versions: dict[str, list[Entry]] = {}
        self._by_type: dict[str, list[str]] = {}
        self._by_subject: dict[bytes, list[str]] = {}
        self._full_urls: dict[str, str] = {}
        self._records = 0
        self._pruned: set[tuple[bytes, int]] = set()

    def apply(self, block: PublishedBlock) -> None:
        """Takes one block; called in log order."""
        for transaction, receipt in block.calls:
            if transaction is None or not receipt.applied:
                continue
            called = (transaction.contract, transaction.method)
            if called in _ROWS_ARGUMENT:
                self._take(transaction, receipt, block)
            elif called == ("records", "erase"):
                self._drop_record(transaction.args[1])
                for pack_root, _ in transaction.attachments:
                    self._list_again(block, pack_root)
            elif called == ("records", "erase_subject"):
                self._drop_subject(transaction.args[1])
            elif called in _PRUNINGS:
                versions = transaction.args[1]
                named = {(each[0], each[1]) for each in versions} if isinstance(versions, tuple) else set()
                with self._lock:
                    (self._pruned.update if _PRUNINGS[called] else self._pruned.difference_update)(named)

    def versions(self, reference: str) -> Sequence[Entry]:
        """All versions of a record, oldest first; empty when there is none."""
        return self._versions.get(reference, ())

    def current(self, reference: str) -> Entry | None:
        """The newest version of a record."""
        versions = self._versions.get(reference)
        return versions[-1] if versions else None

    def reference_of(self, record_id: bytes) -> str | None:
        """The reference of a record; looked for among all of them."""
        with self._lock:
            return next((each for each, known in self._versions.items() if known[0].record_id == record_id), None)

    def references(self, resource_type: str | None = None) -> list[str]:
        """References in the order their first versions were recorded; of one type, or of all."""
        with self._lock:
            if not self._sorted:
                self._versions = dict(sorted(self._versions.items(), key=lambda each: _came(each[1][0])))
                for references in (*self._by_type.values(), *self._by_subject.values()):
                    references.sort(key=lambda each: _came(self._versions[each][0]))
                self._sorted = True
            if resource_type is None:
                return list(self._versions)
            return list(self._by_type.get(resource_type, ()))

    def of_subject(self, subject: bytes, resource_type: str | None = None) -> list[str]:
        """The same for one patient's records."""
        prefix = "" if resource_type is None else f"{resource_type}/"
        with self._lock:
            return [reference for reference in self._by_subject.get(subject, ()) if reference.startswith(prefix)]

    def listed_with(self, reference: str) -> dict[ManifestPlace, list[tuple[Entry, str | None]]]:
        """Each manifest that names a record, with whatever else of its subject it names."""
        with self._lock:
            versions = self._versions.get(reference, [])
            found: dict[ManifestPlace, list[tuple[Entry, str | None]]] = {
                each.listed: [] for each in versions if each.listed is not None
            }
            others = self._by_subject.get(versions[0].subject, []) if versions else []
            urls = {each: url for url, each in self._full_urls.items()}
            for other in others:
                for entry in self._versions[other]:
                    if other != reference and entry.listed in found:
                        found[entry.listed].append((entry, urls.get(other)))
        return found

    def full_url(self, url: str) -> str | None:
        """The ``Type/id`` of the resource a Bundle called so."""
        return self._full_urls.get(url)

    def is_pruned(self, entry: Entry) -> bool:
        """Whether the chain says that the bytes of a version went."""
        return (entry.record_id, entry.version) in self._pruned

    @property
    def record_count(self) -> int:
        """Records, not versions; audit events are not counted."""
        return self._records

    def _take(self, transaction: Transaction, receipt: Receipt, block: PublishedBlock) -> None:
        rows_field = _ROWS_ARGUMENT[transaction.contract, transaction.method]
        rows = transaction.args.get(rows_field, ())
        if not isinstance(rows, tuple) or any(len(row) != _ROW_WIDTH for row in rows):
            raise CorruptionError("index.malformed_arguments", {"height": block.height})
        for number, (pack_root, _) in enumerate(transaction.attachments):
            placed = {row[7]: row for row in rows if row[6] == number}
            manifests = list(self._open_manifests(block.pack(pack_root), len(placed)))
            told: dict[int, tuple[Any, ManifestPlace | None]] = {}
            for manifest, content in manifests:
                listed = (block.height, pack_root, manifest)
                for position, *names in _read_manifest(content, MANIFEST_VERSION):
                    told[position] = (names, listed)
            with self._lock:
                for position, row in sorted(placed.items()):
                    names, listed_at = told.get(position, (None, None))
                    if names is None and row[3] == AUDIT and self._subjects.by_id(row[2]) is None:
                        # The organisation's copy outlives the patient's manifest; its reference is its record id.
                        names = [f"AuditEvent/{row[0].hex()}", None, _NO_DIGEST]
                    if names is not None:
                        self._add(_entry(row, names, receipt, block.time_ms, listed_at), names[1])

    def _list_again(self, block: PublishedBlock, pack_root: bytes) -> None:
        """What stood in a manifest beside an erased record stands in a new one."""
        for manifest, content in list(self._open_manifests(block.pack(pack_root), 0)):
            listed = (block.height, pack_root, manifest)
            for record_id, version, reference, full_url, digest in _read_manifest(content, MANIFEST_AGAIN):
                row = self._row_of(record_id, version)
                if row is None or row.has(ERASED):
                    continue
                place = (row.index, row.height, row.time_ms, row.position)
                entry = Entry(reference, record_id, version, row.subject, row.record_class, *place, digest, listed)
                with self._lock:
                    self._put_back(entry, full_url)

    def _put_back(self, entry: Entry, full_url: str | None) -> None:
        known = self._versions.get(entry.reference)
        if known is None:
            self._add(entry, full_url)
        else:
            others = [each for each in known if each.version != entry.version]
            known[:] = sorted((*others, entry), key=lambda each: each.version)
        self._sorted = False

    def _drop_record(self, record_id: object) -> None:
        with self._lock:
            for reference in [each for each, known in self._versions.items() if known[0].record_id == record_id]:
                self._drop(reference)

    def _drop_subject(self, subject: object) -> None:
        """The organisation's copies of audit events stay, under their record ids alone."""
        with self._lock:
            for reference in self._by_subject.get(subject, [])[:] if isinstance(subject, bytes) else []:
                known = self._versions[reference]
                if known[0].record_class == AUDIT:
                    known[:] = [replace(each, digest=_NO_DIGEST, listed=None) for each in known]
                else:
                    self._drop(reference)

    def _drop(self, reference: str) -> None:
        first = self._versions.pop(reference)[0]
        self._by_type[first.resource_type].remove(reference)
        self._by_subject[first.subject].remove(reference)
        self._records -= first.record_class != AUDIT
        self._full_urls = {url: each for url, each in self._full_urls.items() if each != reference}

    def _add(self, entry: Entry, full_url: str | None) -> None:
        reference = entry.reference
        resource_type, _, resource_id = reference.partition("/")
        known = self._versions.get(reference)
        if known is None:
            self._versions[reference] = [entry]
            self._by_type.setdefault(resource_type, []).append(reference)
            self._by_subject.setdefault(entry.subject, []).append(reference)
            self._records += entry.record_class != AUDIT
        else:
            known.append(entry)
        self._full_urls[full_url or f"urn:uuid:{resource_id}"] = reference

    def _open_manifests(
        self, pack: SealedPack | StoredPack, first: int
    ) -> Iterator[tuple[int, bytes]]:
        for position in range(first, len(pack)):
            item, wraps = pack.item(position), pack.wraps(position)
            if item is None or wraps is None:
                continue
            for subject_id, custodian, record_class, epoch in wrap_kids(wraps):
                if custodian != self._subjects.custodian or record_class != INDEX:
                    continue
                subject = self._subjects.by_id(subject_id)
                if subject is None:
                    self._subjects.require_erased(subject_id)
                    continue
                key = self._subjects.key(subject, INDEX, epoch)
                content, _ = open_record(
                    item,
                    wraps,
                    key,
                    origin=self._origin,
                    record_id=subject_id,
                    version=position,
                    class_=INDEX,
                    commitment=None,
                )
                yield position, content


def _entry(
    row: Sequence[Any], told: Sequence[Any], receipt: Receipt, time_ms: int, listed: ManifestPlace | None
) -> Entry:
    record_id, version, subject, record_class = row[:4]
    reference, _, digest = told
    place = (receipt.index, receipt.height, time_ms, row[7])
    return Entry(reference, record_id, version, subject, record_class, *place, digest, listed)


def _came(entry: Entry) -> tuple[int, int]:
    return entry.index, entry.position


def _read_manifest(content: bytes, version: int) -> Sequence[tuple[Any, ...]]:
    value = cbor_decode(content)
    if not (isinstance(value, tuple) and len(value) == 2 and value[0] == version):
        raise CorruptionError("index.malformed_manifest")
    rows: Sequence[tuple[Any, ...]] = value[1]
    return rows
