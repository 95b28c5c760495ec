"""Opening: from a sealed item back to the bytes that were received, checked against the commitment in the state."""

from __future__ import annotations

from dataclasses import dataclass, field

from ehrfast._core import open_record
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
        NotFoundError: ``record.unknown`` when this node holds no key for it (it was erased, or never ours).
        CorruptionError: the bytes are not what the state commits to.
    """
    subject = subjects.by_id(row.subject)
    if subject is None:
        raise NotFoundError("record.unknown")
    key = subjects.key(subject, row.record_class, row.epoch)
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
