"""The state's row of one record version: whose it is, what it commits to, where it lies, who wrote it when."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

DELETED: Final = 1
ERASED: Final = 2
PRUNED: Final = 4


@dataclass(frozen=True, slots=True)
class RecordRow:
    """What the state says of one record version, in the order of the contract ``records``.

    Commitment and roots are None in a version that says the record was deleted, the commitment in one that was erased.

    Args:
        flags: `DELETED`, `ERASED` and `PRUNED`, added up.
        height: of the block with the sealed item.
        rewraps: heights of the blocks with later wraps, the newest last; the same pack travelled with each.
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
    rewraps: tuple[int, ...]

    @property
    def wraps_height(self) -> int:
        """Height of the block with the wraps in force."""
        return self.rewraps[-1] if self.rewraps else self.height

    def has(self, flag: int) -> bool:
        """Whether a flag is set."""
        return bool(self.flags & flag)

    @staticmethod
    def of(value: object) -> RecordRow | None:
        """Reads a row; None when the value is anything else."""
        if not (isinstance(value, tuple) and len(value) == _WIDTH):
            return None
        return RecordRow(*value)


_WIDTH: Final = len(fields(RecordRow))
