"""The record index in memory: reference to versions, by type and by patient. Rebuilt from the manifests at every open.

Fed block by block in log order; a failed call leaves nothing here. Manifests of subjects whose keys are gone stay
closed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ehrfast._core import SealedPack, Transaction, cbor_decode, open_record, wrap_kids
from ehrfast.errors import CorruptionError
from ehrfast.keys.subjects import Subjects
from ehrfast.model.block import PublishedBlock
from ehrfast.model.receipt import Receipt
from ehrfast.records.classes import INDEX
from ehrfast.records.seal import MANIFEST_VERSION

_ROWS_ARGUMENT = {("records", "put"): 1, ("access", "append"): 2}
"""Contract and method to the number of the argument that lists the rows."""
_ROW_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one record, as the index knows it; nothing of its content."""

    reference: str = field(repr=False)
    record_id: bytes
    version: int
    subject: bytes
    record_class: str
    index: int
    height: int
    time_ms: int
    digest: bytes = field(repr=False)

    @property
    def resource_type(self) -> str:
        """The FHIR type before the slash."""
        return self.reference.partition("/")[0]


class RecordIndex:
    """References, versions, types and patients of the records one custodian can open."""

    def __init__(self, origin: str, subjects: Subjects) -> None:
        self._origin = origin
        self._subjects = subjects
        self._lock = threading.Lock()
        self._versions: dict[str, list[Entry]] = {}
        self._by_type: dict[str, list[str]] = {}
        self._by_subject: dict[bytes, list[str]] = {}
        self._full_urls: dict[str, str] = {}
        self._records = 0

    def apply(self, block: PublishedBlock) -> None:
        """Takes one block; called in log order."""
        for transaction, receipt in block.calls:
            if transaction is None or not receipt.applied:
                continue
            if (transaction.contract, transaction.method) in _ROWS_ARGUMENT:
                self._take(transaction, receipt, block)

    def versions(self, reference: str) -> Sequence[Entry]:
        """All versions of a record, oldest first; empty when there is none."""
        return self._versions.get(reference, ())

    def current(self, reference: str) -> Entry | None:
        """The newest version of a record."""
        versions = self._versions.get(reference)
        return versions[-1] if versions else None

    def references(self, resource_type: str | None = None) -> list[str]:
        """References in the order their first versions were recorded; of one type, or of all."""
        with self._lock:
            if resource_type is None:
                return list(self._versions)
            return list(self._by_type.get(resource_type, ()))

    def of_subject(self, subject: bytes, resource_type: str | None = None) -> list[str]:
        """The same for one patient's records."""
        prefix = "" if resource_type is None else f"{resource_type}/"
        with self._lock:
            return [reference for reference in self._by_subject.get(subject, ()) if reference.startswith(prefix)]

    def full_url(self, url: str) -> str | None:
        """The ``Type/id`` of the resource a Bundle called so."""
        return self._full_urls.get(url)

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
            listed = dict(self._open_manifests(block.pack(pack_root), len(placed)))
            with self._lock:
                for position, row in placed.items():
                    if (told := listed.get(position)) is not None:
                        self._add(row, *told, receipt, block.time_ms)

    def _add(
        self,
        row: tuple[Any, ...],
        reference: str,
        full_url: str | None,
        digest: bytes,
        receipt: Receipt,
        time_ms: int,
    ) -> None:
        record_id, version, subject, record_class = row[:4]
        entry = Entry(
            reference,
            record_id,
            version,
            subject,
            record_class,
            receipt.index,
            receipt.height,
            time_ms,
            digest,
        )
        resource_type, _, resource_id = reference.partition("/")
        known = self._versions.get(reference)
        if known is None:
            self._versions[reference] = [entry]
            self._by_type.setdefault(resource_type, []).append(reference)
            self._by_subject.setdefault(entry.subject, []).append(reference)
            self._records += record_class != "audit"
        else:
            known.append(entry)
        self._full_urls[full_url or f"urn:uuid:{resource_id}"] = reference

    def _open_manifests(
        self, pack: SealedPack, first: int
    ) -> Iterator[tuple[int, tuple[str, str | None, bytes]]]:
        for position in range(first, len(pack)):
            wraps = pack.wraps(position)
            for subject_id, custodian, record_class, epoch in wrap_kids(wraps):
                if custodian != self._subjects.custodian or record_class != INDEX:
                    continue
                subject = self._subjects.by_id(subject_id)
                if subject is None:
                    self._subjects.require_erased(subject_id)
                    continue
                key = self._subjects.key(subject, INDEX, epoch)
                content, _ = open_record(
                    pack.item(position),
                    wraps,
                    key,
                    origin=self._origin,
                    record_id=subject_id,
                    version=position,
                    class_=INDEX,
                    commitment=None,
                )
                yield from _read_manifest(content)


def _read_manifest(content: bytes) -> Iterator[tuple[int, tuple[str, str | None, bytes]]]:
    value = cbor_decode(content)
    if not (isinstance(value, tuple) and len(value) == 2 and value[0] == MANIFEST_VERSION):
        raise CorruptionError("index.malformed_manifest")
    for position, reference, full_url, digest in value[1]:
        yield position, (reference, full_url, digest)
