"""Opening: from a sealed item back to the bytes that were received, checked against the commitment in the state."""

from __future__ import annotations

from dataclasses import dataclass, field

from ehrfast._core import ClassKey, open_record, wrap_kids
from ehrfast.errors import NotFoundError
from ehrfast.keys.subjects import Subjects
from ehrfast.model.record import RecordRow


@dataclass(frozen=True, slots=True)
class OpenedRecord:
    """The plaintext, and the key that would disclose it to others."""

    content: bytes = field(repr=False)
    opening_key: bytes = field(repr=False)


def open_sealed(
    item: bytes, wraps: bytes, row: RecordRow, subjects: Subjects, *, origin: str, record_id: bytes, version: int
) -> OpenedRecord:
    """Opens one record version under its subject's class key.

    Raises:
        NotFoundError: ``record.erased`` when this node holds no key for it (its patient was erased, or never ours).
        CorruptionError: the bytes are not what the state commits to.
    """
    key = _key_for(wraps, row, subjects)
    content, opening_key = open_record(
        item,
        wraps,
        key,
        origin=origin,
        record_id=record_id,
        version=version,
        class_=row.record_class,
        commitment=row.commitment,
    )
    return OpenedRecord(content, opening_key)


def _key_for(wraps: bytes, row: RecordRow, subjects: Subjects) -> ClassKey:
    """The subject's key; for an audit event of an erased patient the custodian's own, whose wrap stays."""
    subject = subjects.by_id(row.subject)
    if subject is not None:
        return subjects.key(subject, row.record_class, row.epoch)
    for subject_id, custodian, record_class, epoch in wrap_kids(wraps):
        if subject_id == custodian == subjects.custodian and record_class == row.record_class:
            return subjects.key(subjects.of(None), record_class, epoch)
    raise NotFoundError("record.erased")
