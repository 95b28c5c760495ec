"""Writing records: which resources are new, changed or already there; sealed, signed and submitted as one transaction.

A resource whose bytes equal its newest version makes no second one. Versions still under way are counted, so writes
may be pipelined; a failed one takes its numbers back.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ehrfast._core import Resources, SigningKey, blake3_digests, keyed_digest, random_bytes
from ehrfast.access.sign import sign_call
from ehrfast.chain.chain import Chain
from ehrfast.chain.pending import PendingReceipt
from ehrfast.consensus.lanes import ROUTINE
from ehrfast.fhir.json import dumps
from ehrfast.fhir.references import resolve
from ehrfast.keys.subjects import Subjects
from ehrfast.records.blobs.store import BlobStore
from ehrfast.records.classes import INDEX, class_of
from ehrfast.records.index.memory import Entry, RecordIndex
from ehrfast.records.pieces import seal_stream
from ehrfast.records.placement import Placement
from ehrfast.records.seal import DIGEST_BYTES, Draft, SealedRecords, seal, seal_beside

WHOLE: Final = 32
"""Bytes of a whole digest."""
MAX_RECORDS: Final = 700
"""Records of one transaction; its arguments stay below 256 KiB."""
MAX_EPOCHS: Final = 700
"""Class keys that one transaction can post."""
MAX_CONTENT_BYTES: Final = 64 * 1024 * 1024
"""Plaintext of one transaction; what does not fit into the log becomes blobs."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One resource of a document, not yet compared with what is there."""

    reference: str = field(repr=False)
    resource_type: str
    patient: str | None = field(repr=False)
    full_url: str | None = field(repr=False)
    start: int
    end: int
    digest: bytes = field(repr=False)


@dataclass(slots=True)
class _UnderWay:
    """The newest version submitted of a record, and how many of its submissions are not settled."""

    record_id: bytes
    version: int
    digest: bytes
    pending: int


@dataclass(frozen=True, slots=True)
class Written:
    """A submitted transaction.

    Args:
        pending: its receipt, not there yet.
        records: how many of the incoming resources it carries; the others were already there.
    """

    pending: PendingReceipt
    records: int


class RecordWriter:
    """Plans, seals and submits record versions of one custodian. Thread-safe."""

    def __init__(
        self, chain: Chain, subjects: Subjects, index: RecordIndex, blobs: BlobStore, placement: Placement
    ) -> None:
        self._chain = chain
        self._subjects = subjects
        self._index = index
        self._blobs = blobs
        self._placement = placement
        self._order = threading.Lock()  # plan and submission of one write; held while the chain is full
        self._lock = threading.Lock()  # the versions under way; never held while waiting: receipts settle under it
        self._under_way: dict[str, _UnderWay] = {}
        self._submitted_patients: dict[str, str] = {}

    def describe(self, resources: Resources) -> list[Incoming]:
        """What a document holds: references, patients and digests of its resources, in entry order.

        A resource without id gets one drawn from its bytes under the custodian's key, beside the bytes: the same file
        imported again finds it again, and nobody without the key can guess it.
        """
        spans = resources.spans
        if not len(resources):
            return []
        flat = np.ascontiguousarray(spans).reshape(-1)
        digests = blake3_digests(resources.data, flat)[::2].tobytes()
        rows = resources.rows()
        custodian = self._subjects.of(None)
        references = []
        for number, (resource_type, resource_id, full_url, _, _) in enumerate(rows):
            if resource_id is None:
                seed = custodian.root + (full_url or "").encode() + digests[WHOLE * number : WHOLE * number + WHOLE]
                resource_id = keyed_digest("index", seed)[:16].hex()
            references.append(f"{resource_type}/{resource_id}")
        within = {row[2]: reference for row, reference in zip(rows, references, strict=True) if row[2] is not None}
        patients = {written: resolve(written, within, self._patient_called) for written in {row[3] for row in rows}}
        return [
            Incoming(
                reference,
                resource_type,
                reference if resource_type == "Patient" else patients[patient],
                full_url,
                start,
                end,
                digests[place : place + DIGEST_BYTES],
            )
            for (resource_type, _, full_url, patient, _), reference, (start, end), place in zip(
                rows, references, spans.tolist(), range(0, len(digests), WHOLE), strict=True
            )
        ]

    def write(
        self, data: bytes, incoming: Sequence[Incoming], key: SigningKey, *, lane: int = ROUTINE
    ) -> Written | None:
        """Seals and submits what is new or changed as one transaction; None when everything is already there.

        Args:
            data: the bytes the ranges point into.
            incoming: at most `MAX_RECORDS`.
            key: of the author.

        Raises:
            UnavailableError: ``store.full``, ``store.io`` …: the blobs could not be kept; nothing was submitted.
        """
        self._chain.require_writable()
        self._join_patients(incoming)
        with self._order:
            with self._lock:
                drafts = self._plan(incoming)
            if not drafts:
                return None
            sealed = seal(self._chain.chain_id, data, drafts, self._subjects, self._placement)
            if sealed.blobs:
                self._blobs.put_many(sealed.blobs)  # durable before any frame can name them
            pending = self._submit(sealed, drafts, key, lane)
        pending.add_done_callback(lambda settled: self._settled(drafts, settled))
        return Written(pending, len(drafts))

    def forget(self, references: Collection[str]) -> None:
        """Drops what is remembered of erased records."""
        with self._lock:
            for reference in references:
                self._under_way.pop(reference, None)
            self._submitted_patients = {
                url: each for url, each in self._submitted_patients.items() if each not in references
            }

    def write_stream(
        self,
        chunks: Iterable[bytes],
        key: SigningKey,
        *,
        resource_id: str,
        content_type: str,
        patient: str | None,
        lane: int = ROUTINE,
    ) -> Written:
        """Seals a stream in pieces and submits it as a Binary; memory stays at a few MiB whatever its length.

        Raises:
            InvalidInputError: ``pieces.too_large``: more than 2 GiB; nothing was submitted.
            UnavailableError: ``store.full``, ``store.io`` …: the same.
        """
        self._chain.require_writable()
        reference = f"Binary/{resource_id}"
        head: dict[str, object] = {"resourceType": "Binary", "id": resource_id, "contentType": content_type}
        if patient is not None:
            head["securityContext"] = {"reference": patient}
        item = Incoming(reference, "Binary", patient, None, 0, 0, b"")
        with self._order, self._lock:
            [planned] = self._plan([item])
        epoch = self._subjects.current(planned.subject, planned.record_class)
        pieces = seal_stream(
            chunks,
            dumps(head),
            epoch.key,
            self._blobs,
            origin=self._chain.chain_id,
            record_id=planned.record_id,
            version=planned.version,
            record_class=planned.record_class,
        )
        draft = replace(planned, digest=pieces.content_digest[:DIGEST_BYTES])
        sealed = seal_beside(self._chain.chain_id, draft, pieces, epoch, self._subjects)
        with self._order:
            pending = self._submit(sealed, [draft], key, lane)
        pending.add_done_callback(lambda settled: self._settled([draft], settled))
        return Written(pending, 1)

    def _submit(self, sealed: SealedRecords, drafts: Sequence[Draft], key: SigningKey, lane: int) -> PendingReceipt:
        transaction = sign_call(
            self._chain, key, "records", "put", sealed.put(), numbered=True, packs=(sealed.pack,), lane=lane
        )
        pending = self._chain.submit(transaction, (sealed.pack,))
        with self._lock:
            for draft in drafts:
                mine = self._under_way.get(draft.reference)
                if mine is None:
                    self._under_way[draft.reference] = _UnderWay(draft.record_id, draft.version, draft.digest, 1)
                else:
                    mine.record_id, mine.version, mine.digest = draft.record_id, draft.version, draft.digest
                    mine.pending += 1
        return pending

    def _plan(self, incoming: Sequence[Incoming]) -> list[Draft]:
        subjects = self._subjects.of_many([item.patient for item in incoming])
        drafts: dict[str, Draft] = {}
        fresh = random_bytes(16 * len(incoming))
        for number, (item, subject) in enumerate(zip(incoming, subjects, strict=True)):
            newest = self._newest(item.reference)
            if item.reference in drafts or (newest is not None and newest.digest == item.digest):
                continue
            default_url = f"urn:uuid:{item.reference.partition('/')[2]}"
            drafts[item.reference] = Draft(
                reference=item.reference,
                record_id=fresh[16 * number : 16 * number + 16] if newest is None else newest.record_id,
                version=1 if newest is None else newest.version + 1,
                record_class=class_of(item.resource_type),
                subject=subject,
                start=item.start,
                end=item.end,
                digest=item.digest,
                full_url=None if item.full_url == default_url else item.full_url,
            )
        return list(drafts.values())

    def _newest(self, reference: str) -> _UnderWay | Entry | None:
        """The newest version, under way or recorded; one under way counts until the index has caught up with it."""
        under_way, recorded = self._under_way.get(reference), self._index.current(reference)
        if under_way is None or (recorded is not None and recorded.version >= under_way.version):
            if under_way is not None and under_way.pending == 0:
                del self._under_way[reference]
            return recorded
        return under_way

    def _join_patients(self, incoming: Sequence[Incoming]) -> None:
        """A Patient resource joins the subject drawn for whoever referred to it earlier by its fullUrl."""
        for url in [url for url in self._submitted_patients if self._index.full_url(url) is not None]:
            del self._submitted_patients[url]
        for item in incoming:
            if item.resource_type == "Patient" and item.full_url is not None:
                self._submitted_patients[item.full_url] = item.reference
                if self._subjects.known(item.reference) is None and self._subjects.known(item.full_url) is not None:
                    self._subjects.join(item.full_url, item.reference)

    def _patient_called(self, url: str) -> str | None:
        """Whom a fullUrl stands for, patients counted whose transactions the index has not seen yet."""
        return self._index.full_url(url) or self._submitted_patients.get(url)

    def _settled(self, drafts: Sequence[Draft], settled: PendingReceipt) -> None:
        applied = settled.applied()
        with self._lock:
            for draft in drafts:
                mine = self._under_way.get(draft.reference)
                if mine is None:
                    continue
                mine.pending -= 1
                if not applied and mine.pending == 0:
                    del self._under_way[draft.reference]
        if not applied:
            for draft in drafts:
                self._subjects.forget_epoch(draft.subject.id, draft.record_class)


def split(incoming: Sequence[Incoming]) -> list[Sequence[Incoming]]:
    """Cuts a document into parts that fit one transaction each, in order.

    Each patient new to a transaction may need two class keys posted with it, one for the record and one for the index;
    those are counted as if none were known yet.
    """
    parts: list[Sequence[Incoming]] = []
    first, size = 0, 0
    keys: set[tuple[str | None, str]] = set()
    for number, item in enumerate(incoming):
        wanted = {(item.patient, class_of(item.resource_type)), (item.patient, INDEX)}
        size += item.end - item.start
        full = number - first == MAX_RECORDS or size > MAX_CONTENT_BYTES or len(keys) + len(wanted - keys) > MAX_EPOCHS
        if number > first and full:
            parts.append(incoming[first:number])
            first, size = number, item.end - item.start
            keys.clear()
        keys |= wanted
    if first < len(incoming):
        parts.append(incoming[first:])
    return parts
