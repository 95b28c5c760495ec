"""The C2SP text of an offline proof: extra data, index, audit path and the checkpoint it leads to.

Owns the text in both directions and refuses any text it would not have written itself. The extra data is carried,
never trusted: nothing in the text authenticates it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ehrfast._core import log_leaf_hash, verify_inclusion
from ehrfast.errors import InvalidInputError
from ehrfast.model.checkpoint import Checkpoint, Note, VerifierKey, decode_base64, decode_decimal, open_checkpoint

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES: Final = 1 << 20
MAX_HASHES: Final = 63
"""The depth of the largest tree a checkpoint can name."""
_MALFORMED: Final = "tlog_proof.malformed"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """An inclusion proof on its way to someone who was not there.

    Args:
        extra: bytes the application adds, at least one; None for none.
        index: 0-based, of the leaf.
        hashes: the audit path, 32 bytes each, the leaf's sibling first.
        checkpoint: the note, verbatim.

    Raises:
        InvalidInputError: ``tlog_proof.malformed``, ``note.…`` for the checkpoint.

    Source: C2SP tlog-proof.
    """

    extra: bytes | None = field(repr=False)
    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        shaped = self.extra != b"" and self.index >= 0 and len(self.hashes) <= MAX_HASHES
        if not shaped or any(len(each) != 32 for each in self.hashes):
            raise InvalidInputError(_MALFORMED)
        Checkpoint.parse(Note.parse(self.checkpoint).text, allow_extensions=True)

    def render(self) -> bytes:
        """The text, to be kept in a file ending in ``.tlog-proof``."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines.extend(b64encode(each).decode() for each in self.hashes)
        return "\n".join([*lines, "", ""]).encode() + self.checkpoint

    @classmethod
    def parse(cls, text: bytes) -> TlogProof:
        """Reads a text; verifies nothing yet.

        Raises:
            InvalidInputError: ``tlog_proof.too_large``, ``tlog_proof.malformed``, ``note.…``, ``checkpoint.malformed``.
        """
        if len(text) > MAX_PROOF_BYTES:
            raise InvalidInputError("tlog_proof.too_large", {"limit": MAX_PROOF_BYTES})
        head, blank, checkpoint = text.partition(b"\n\n")
        if not blank or not head.isascii():
            raise InvalidInputError(_MALFORMED)
        first, *lines = head.decode().split("\n")
        if first != HEADER or not lines:
            raise InvalidInputError(_MALFORMED)
        extra = None
        if lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), _MALFORMED)
        if not lines or not lines[0].startswith("index "):
            raise InvalidInputError(_MALFORMED)
        index = decode_decimal(lines[0].removeprefix("index "), _MALFORMED)
        return cls(extra, index, tuple(decode_base64(line, _MALFORMED) for line in lines[1:]), checkpoint)

    def verify(
        self,
        leaf: bytes,
        key: str | VerifierKey,
        *,
        witnesses: Iterable[str | VerifierKey] = (),
        quorum: int = 0,
    ) -> Checkpoint:
        """Checks that the log behind ``key`` holds ``leaf`` at this index, and gives the checkpoint that says so.

        Args:
            leaf: the entry itself, not its hash.
            key, witnesses, quorum: as in `open_checkpoint`.

        Raises:
            VerificationError: ``proof.…``, ``checkpoint.…``, ``cosignature.…``.
        """
        checkpoint = open_checkpoint(self.checkpoint, key, witnesses=witnesses, quorum=quorum)
        verify_inclusion(log_leaf_hash(leaf), self.index, checkpoint.tree_size, list(self.hashes), checkpoint.root)
        return checkpoint
