"""The keys a log has signed its checkpoints with, one after the other, and the statements that tie them together.

A statement says from which tree size a new key holds; the former key and the new one both sign it, so whoever trusts
one key of a history trusts all of them, each for its own sizes. Refuses a statement that one of the two did not sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ehrfast._core import SigningKey
from ehrfast.errors import EhrfastError, InvalidInputError, VerificationError
from ehrfast.model.checkpoint import (
    LOG_SIGNATURE,
    MAX_TREE_SIZE,
    Checkpoint,
    Note,
    NoteSignature,
    VerifierKey,
    decode_decimal,
    open_checkpoint,
    verify_note,
)

HEADING: Final = "ehrfast/key-rotation/v1"
MAX_HISTORY_BYTES: Final = 1 << 20
_TEXT_LINES: Final = 5
_STATEMENT_LINES: Final = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """One change of key.

    Args:
        tree_size: the former key signs up to it, the new one from it on.
        note: the statement as signed.
    """

    tree_size: int
    former: VerifierKey
    key: VerifierKey
    note: bytes

    @classmethod
    def sign(cls, origin: str, tree_size: int, former: SigningKey, key: SigningKey) -> Rotation:
        """States that one key follows another from a tree size on."""
        named = [VerifierKey(origin, LOG_SIGNATURE, each.public_key) for each in (former, key)]
        lines = [HEADING, origin, str(tree_size), *(each.encode() for each in named)]
        text = "".join(f"{line}\n" for line in lines).encode()
        signed = [
            NoteSignature(origin, name.key_id, each.sign(text)) for name, each in zip(named, (former, key), strict=True)
        ]
        return cls(tree_size, named[0], named[1], Note(text, tuple(signed)).render())

    @classmethod
    def open(cls, note: bytes) -> Rotation:
        """Reads a statement and checks both signatures.

        Raises:
            InvalidInputError: ``key_history.malformed``.
            VerificationError: ``checkpoint.not_signed``, ``checkpoint.signature_invalid``.
        """
        code = "key_history.malformed"
        parsed = Note.parse(note)
        lines = parsed.text.decode().split("\n")[:-1]
        if len(lines) != _TEXT_LINES or lines[0] != HEADING or len(parsed.signatures) != 2 or parsed.render() != note:
            raise InvalidInputError(code)
        former, key = VerifierKey.decode(lines[3]), VerifierKey.decode(lines[4])
        if former == key or {former.name, key.name} != {lines[1]}:
            raise InvalidInputError(code)
        for signer in (former, key):
            verify_note(parsed, signer)
        return cls(decode_decimal(lines[2], code), former, key, note)


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """The keys of a log in order.

    Args:
        founding: the first one.
        rotations: what followed.
    """

    founding: VerifierKey
    rotations: tuple[Rotation, ...] = ()

    @classmethod
    def of(cls, key: str | VerifierKey) -> KeyHistory:
        """A log that has had one key."""
        return cls(key if isinstance(key, VerifierKey) else VerifierKey.decode(key))

    @classmethod
    def parse(cls, data: bytes) -> KeyHistory:
        """Reads the published form: the statements, one behind the other, at least one.

        Raises:
            InvalidInputError: ``key_history.malformed``, also when they do not follow one another.
            VerificationError: a statement is not signed by the former key, or not by the new one.
        """
        code = "key_history.malformed"
        lines = data.splitlines(keepends=True)
        if len(data) > MAX_HISTORY_BYTES or not lines or len(lines) % _STATEMENT_LINES:
            raise InvalidInputError(code)
        notes = [b"".join(lines[at : at + _STATEMENT_LINES]) for at in range(0, len(lines), _STATEMENT_LINES)]
        rotations = tuple(Rotation.open(note) for note in notes)
        for before, after in pairwise(rotations):
            if before.key != after.former or before.tree_size > after.tree_size:
                raise InvalidInputError(code)
        return cls(rotations[0].former, rotations)

    def render(self) -> bytes:
        """The published form; empty for a log that has had one key."""
        return b"".join(each.note for each in self.rotations)

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """Every key, the founding one first."""
        return (self.founding, *(each.key for each in self.rotations))

    @property
    def current(self) -> VerifierKey:
        """The key in force."""
        return self.keys[-1]

    def followed_by(self, rotation: Rotation) -> KeyHistory:
        """The history with one more change."""
        return KeyHistory(self.founding, (*self.rotations, rotation))

    def without_last(self) -> KeyHistory:
        """The history without its last change."""
        return KeyHistory(self.founding, self.rotations[:-1])

    def trusted_by(self, key: str | VerifierKey) -> KeyHistory:
        """Itself, when the key that is trusted is one of its keys.

        Raises:
            VerificationError: ``key_history.other_log``.
        """
        if (key if isinstance(key, VerifierKey) else VerifierKey.decode(key)) not in self.keys:
            raise VerificationError("key_history.other_log")
        return self

    def open_checkpoint(
        self, note: bytes, *, witnesses: Iterable[str | VerifierKey] = (), quorum: int = 0
    ) -> Checkpoint:
        """Checks a checkpoint under the key that was in force at its size; see `model.checkpoint.open_checkpoint`.

        Raises:
            VerificationError: ``checkpoint.key_not_in_force``: by a key of the log, at a size that was not its own.
        """
        parsed, listed = Note.parse(note), tuple(witnesses)
        starts = [0, *(each.tree_size for each in self.rotations)]
        ends = [*starts[1:], MAX_TREE_SIZE]
        refused: EhrfastError = VerificationError("checkpoint.not_signed")
        for key, start, end in zip(self.keys, starts, ends, strict=True):
            if not parsed.signatures_by(key):
                continue
            checkpoint = open_checkpoint(note, key, witnesses=listed, quorum=quorum)
            if start <= checkpoint.tree_size <= end:
                return checkpoint
            refused = VerificationError("checkpoint.key_not_in_force", {"tree_size": checkpoint.tree_size})
        raise refused
