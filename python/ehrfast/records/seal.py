"""Sealing: resources become a pack of ciphertexts and the rows that commit to them. Before: drafts. After: a pack to
sign.

Beside the records a pack carries one manifest per subject, sealed like them: which position holds which resource.
The index is rebuilt from manifests alone, and an erased patient's manifest is as unreadable as the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ehrfast._core import ClassKey, SealedPack, SealedPieces, cbor_encode, seal_records
from ehrfast.keys.subjects import Epoch, Subject, Subjects
from ehrfast.records.classes import INDEX
from ehrfast.records.placement import BLOB, CHAIN, Placement

MANIFEST_VERSION: Final = 1
MANIFEST_AGAIN: Final = 2
"""Of a manifest that lists anew what stood beside an erased record, by record id and version."""
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Draft:
    """A resource version about to be sealed.

    Args:
        reference: ``Type/id``.
        record_id: 16 random bytes, the same for every version.
        version: 1 for the first.
        record_class: see `records.classes`.
        subject: whose record it is.
        start, end: byte range of the resource in the data it came in.
        digest: first 16 bytes of BLAKE3 of those bytes.
        full_url: what other resources of its Bundle call it, when that is not ``urn:uuid:`` + id.
        co_recipients: further subjects whose key of the same class opens it.
    """

    reference: str = field(repr=False)
    record_id: bytes
    version: int
    record_class: str
    subject: Subject
    start: int
    end: int
    digest: bytes = field(repr=False)
    full_url: str | None = field(default=None, repr=False)
    co_recipients: tuple[Subject, ...] = ()

    @property
    def resource_type(self) -> str:
        """The FHIR type before the slash."""
        return self.reference.partition("/")[0]


@dataclass(frozen=True, slots=True)
class SealedRecords:
    """A pack and the arguments that put it into the state.

    Args:
        pack: travels with the transaction, as its only attachment.
        blobs: (digest, item) of what lies outside it; to be durable before the transaction is submitted.
        rows: (record id, version, subject, class, epoch, commitment, attachment number, position, place).
        epochs: (subject, class, epoch id, public key) the chain does not know yet.
    """

    pack: SealedPack
    rows: tuple[tuple[object, ...], ...]
    epochs: tuple[tuple[object, ...], ...]
    blobs: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    def put(self) -> dict[int, object]:
        """The numbered arguments of ``records.put``; no epochs is the default, and defaults are left out."""
        return {1: self.rows, 2: self.epochs} if self.epochs else {1: self.rows}


def seal(
    origin: str, data: bytes, drafts: Sequence[Draft], subjects: Subjects, placement: Placement | None = None
) -> SealedRecords:
    """Encrypts, commits and wraps drafts in one batch; the work runs in Rust without the GIL.

    Args:
        origin: id of the chain the records belong to.
        data: the bytes the drafts' ranges point into.
        drafts: at most 700, record ids distinct.
        placement: which items become blobs; none without it.
    """
    manifests = _manifests(drafts)
    listed = [cbor_encode((MANIFEST_VERSION, rows)) for rows in manifests.values()]
    epochs: dict[tuple[bytes, str], Epoch] = {}

    def key_of(subject: Subject, record_class: str) -> ClassKey:
        name = (subject.id, record_class)
        epoch = epochs.get(name)
        if epoch is None:
            epoch = epochs[name] = subjects.current(subject, record_class)
        return epoch.key

    items: list[tuple[bytes, int, str, list[ClassKey]]] = []
    for draft in drafts:
        keys = [key_of(draft.subject, draft.record_class)]
        if draft.co_recipients:
            keys += [key_of(subject, draft.record_class) for subject in draft.co_recipients]
        items.append((draft.record_id, draft.version, draft.record_class, keys))
    for position, subject in enumerate(_by_id(drafts, manifests), start=len(drafts)):
        items.append((subject.id, position, INDEX, [key_of(subject, INDEX)]))
    pack = seal_records(origin, b"".join((data, *listed)), _spans(data, drafts, listed), items)
    outside: list[int] = []
    if placement is not None:
        sizes = pack.item_sizes[: len(drafts)]
        outside = placement.choose([draft.resource_type for draft in drafts], sizes, pack.size - sum(sizes))
    blobs = tuple((pack.item_digest(position), pack.item(position)) for position in outside)
    places = dict.fromkeys(outside, BLOB)
    rows = tuple(
        (
            draft.record_id,
            draft.version,
            draft.subject.id,
            draft.record_class,
            item[3][0].epoch,
            commitment,
            0,
            position,
            places.get(position, CHAIN),
        )
        for position, (draft, item, commitment) in enumerate(zip(drafts, items, pack.commitments, strict=False))
    )
    return SealedRecords(pack.without(outside) if outside else pack, rows, _unposted(epochs), blobs)


def seal_beside(
    origin: str, draft: Draft, sealed: SealedPieces, epoch: Epoch, subjects: Subjects
) -> SealedRecords:
    """The pack of one record that was sealed in pieces, and its manifest.

    Args:
        draft: its range is of no account; the digest is the content's.
        epoch: of the class key it was wrapped under.
    """
    subject, position = draft.subject, 1
    index = subjects.current(subject, INDEX)
    listed = cbor_encode((MANIFEST_VERSION, ((0, draft.reference, draft.full_url, draft.digest),)))
    spans = np.array([[0, len(listed)]], dtype=np.uint64)
    manifest = seal_records(origin, listed, spans, [(subject.id, position, INDEX, [index.key])])
    key = epoch.key.epoch
    row = (draft.record_id, draft.version, subject.id, draft.record_class, key, sealed.commitment, 0, 0, BLOB)
    epochs = {(subject.id, draft.record_class): epoch, (subject.id, INDEX): index}
    return SealedRecords(manifest.behind([sealed]), (row,), _unposted(epochs))


def _unposted(epochs: Mapping[tuple[bytes, str], Epoch]) -> tuple[tuple[object, ...], ...]:
    return tuple(
        (subject, record_class, epoch.key.epoch, epoch.key.public_key)
        for (subject, record_class), epoch in epochs.items()
        if not epoch.posted
    )


def seal_again(
    origin: str,
    subject: Subject,
    rows: Sequence[tuple[bytes, int, str, str | None, bytes]],
    subjects: Subjects,
) -> SealedPack:
    """A pack of one manifest that takes the place of those that an erasure removes.

    Args:
        rows: (record id, version, reference, fullUrl when it is not ``urn:uuid:`` + id, digest).
    """
    content = cbor_encode((MANIFEST_AGAIN, tuple(rows)))
    key = subjects.current(subject, INDEX).key
    spans = np.array([(0, len(content))], dtype=np.uint64)
    return seal_records(origin, content, spans, [(subject.id, 0, INDEX, [key])])


def _manifests(drafts: Sequence[Draft]) -> dict[bytes, list[tuple[int, str, str | None, bytes]]]:
    manifests: dict[bytes, list[tuple[int, str, str | None, bytes]]] = {}
    for position, draft in enumerate(drafts):
        row = (position, draft.reference, draft.full_url, draft.digest)
        manifests.setdefault(draft.subject.id, []).append(row)
    return manifests


def _by_id(drafts: Sequence[Draft], order: dict[bytes, list[tuple[int, str, str | None, bytes]]]) -> list[Subject]:
    found = {draft.subject.id: draft.subject for draft in drafts}
    return [found[subject_id] for subject_id in order]


def _spans(data: bytes, drafts: Sequence[Draft], listed: Sequence[bytes]) -> NDArray[np.uint64]:
    spans = [(draft.start, draft.end) for draft in drafts]
    end = len(data)
    for manifest in listed:
        spans.append((end, end + len(manifest)))
        end += len(manifest)
    return np.array(spans, dtype=np.uint64).reshape(-1, 2)
