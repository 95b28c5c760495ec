"""The state's row of one record version: whose it is, what it commits to, where it lies, who wrote it when."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class RecordRow:
    """What the state says of one record version, in the order of the contract ``records``.

    Commitment and roots are None in a version that says the record was deleted.
    """

    subject: bytes
    custodian: bytes
    record_class: str
    epoch: bytes
    commitment: bytes | None
    pack_root: bytes | None
    wraps_root: bytes | None
    position: int
    place: int
    author: bytes
    flags: int
    height: int
    index: int
    time_ms: int

    @staticmethod
    def of(value: object) -> RecordRow | None:
        """Reads a row; None when the value is anything else."""
        if not (isinstance(value, tuple) and len(value) == len(fields(RecordRow))):
            return None
        return RecordRow(*value)
