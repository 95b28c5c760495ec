"""Signed notes, checkpoints and cosignatures, in the formats of C2SP.

Owns their text in both directions. Refuses any text it would not have written itself, and a checkpoint without a
valid signature of the key it was asked to trust; signatures of unknown keys are ignored, as the formats demand.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ehrfast._core import SigningKey, verify_consistency, verify_signature
from ehrfast.errors import InvalidInputError, VerificationError

LOG_SIGNATURE: Final = 0x01
"""An Ed25519 signature over the note text."""
COSIGNATURE: Final = 0x04
"""An Ed25519 signature of a witness over the note text and a time."""

MAX_NOTE_BYTES: Final = 256 * 1024
MAX_SIGNATURES: Final = 64
MAX_TREE_SIZE: Final = 2**63 - 1
_EM_DASH: Final = "— "
_HASH_BYTES: Final = 32
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_TIME_BYTES: Final = 8


def decode_base64(text: str, code: str) -> bytes:
    """The bytes of standard base64 with padding, in its one canonical spelling.

    Raises:
        InvalidInputError: with ``code``.
    """
    try:
        decoded = b64decode(text, validate=True)
    except ValueError:
        raise InvalidInputError(code) from None
    if b64encode(decoded).decode() != text:
        raise InvalidInputError(code)
    return decoded


def decode_decimal(text: str, code: str) -> int:
    """A number from 0 to 2^63 - 1 in ASCII digits without leading zeros.

    Raises:
        InvalidInputError: with ``code``.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or (text[0] == "0" and text != "0"):
        raise InvalidInputError(code)
    number = int(text)
    if number > MAX_TREE_SIZE:
        raise InvalidInputError(code)
    return number


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name and the kind of signature it stands for.

    Args:
        name: for a log its origin, for a witness a name of its own.
        algorithm: `LOG_SIGNATURE` or `COSIGNATURE`.
        public_key: 32 bytes, Ed25519.

    Raises:
        InvalidInputError: ``verifier_key.malformed``.

    Source: C2SP signed-note, "Verifier keys".
    """

    name: str
    algorithm: int
    public_key: bytes

    def __post_init__(self) -> None:
        known = self.algorithm in (LOG_SIGNATURE, COSIGNATURE)
        if not known or len(self.public_key) != _KEY_BYTES or not _is_key_name(self.name):
            raise InvalidInputError("verifier_key.malformed")

    @property
    def key_id(self) -> bytes:
        """4 bytes that lead to the key; no proof of anything."""
        named = f"{self.name}\n".encode() + bytes([self.algorithm]) + self.public_key
        return sha256(named).digest()[:_KEY_ID_BYTES]

    def encode(self) -> str:
        """The vkey text: name, key id in hex, algorithm and key in base64, joined by ``+``."""
        material = b64encode(bytes([self.algorithm]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    @classmethod
    def decode(cls, text: str) -> VerifierKey:
        """Reads a vkey.

        Raises:
            InvalidInputError: ``verifier_key.malformed``, also when the key id is not the key's own.
        """
        code = "verifier_key.malformed"
        name, _, rest = text.partition("+")
        _, _, encoded = rest.partition("+")
        material = decode_base64(encoded, code)
        if len(material) != 1 + _KEY_BYTES:
            raise InvalidInputError(code)
        key = cls(name, material[0], material[1:])
        if key.encode() != text:
            raise InvalidInputError(code)
        return key


def verifier_key(origin: str, public_key: bytes) -> str:
    """The vkey under which a log's checkpoints are verified."""
    return VerifierKey(origin, LOG_SIGNATURE, public_key).encode()


def witness_key(name: str, public_key: bytes) -> str:
    """The vkey under which a witness's cosignatures are verified."""
    return VerifierKey(name, COSIGNATURE, public_key).encode()


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note.

    Args:
        name: of the key.
        key_id: 4 bytes.
        signature: at least one byte, as its algorithm defines.
    """

    name: str
    key_id: bytes
    signature: bytes

    def render(self) -> str:
        """The line with its newline."""
        return f"{_EM_DASH}{self.name} {b64encode(self.key_id + self.signature).decode()}\n"

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Reads one line, its newline included.

        Raises:
            InvalidInputError: ``note.malformed``.
        """
        name, _, encoded = line.removeprefix(_EM_DASH).removesuffix("\n").partition(" ")
        if not _is_key_name(name):
            raise InvalidInputError("note.malformed")
        material = decode_base64(encoded, "note.malformed")
        if len(material) <= _KEY_ID_BYTES:
            raise InvalidInputError("note.malformed")
        parsed = cls(name, material[:_KEY_ID_BYTES], material[_KEY_ID_BYTES:])
        if parsed.render() != line:
            raise InvalidInputError("note.malformed")
        return parsed


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures under it.

    Args:
        text: what is signed, its last newline included.
        signatures: in the order of their lines, at least one.

    Source: C2SP signed-note.
    """

    text: bytes
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, note: bytes) -> Note:
        """Reads a note; says nothing yet about its signatures.

        Raises:
            InvalidInputError: ``note.too_large``, ``note.malformed``, ``note.too_many_signatures``.
        """
        if len(note) > MAX_NOTE_BYTES:
            raise InvalidInputError("note.too_large", {"limit": MAX_NOTE_BYTES})
        try:
            decoded = note.decode()
        except UnicodeDecodeError:
            raise InvalidInputError("note.malformed") from None
        if any(character < " " and character != "\n" for character in decoded):
            raise InvalidInputError("note.malformed")
        text, blank, lines = decoded.rpartition("\n\n")
        if not blank or not lines.endswith("\n"):
            raise InvalidInputError("note.malformed")
        listed = lines.split("\n")[:-1]
        if len(listed) > MAX_SIGNATURES:
            raise InvalidInputError("note.too_many_signatures", {"limit": MAX_SIGNATURES})
        return cls(f"{text}\n".encode(), tuple(NoteSignature.parse(f"{line}\n") for line in listed))

    def render(self) -> bytes:
        """The note as it is stored and sent."""
        return self.text + b"\n" + "".join(signature.render() for signature in self.signatures).encode()

    def signatures_by(self, key: VerifierKey) -> tuple[bytes, ...]:
        """The signatures that claim to be by this key, unverified."""
        key_id = key.key_id
        return tuple(each.signature for each in self.signatures if each.name == key.name and each.key_id == key_id)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to by one signature: its name, its size and its root.

    Args:
        origin: the log's name; for our chains the chain id.
        tree_size: number of leaves.
        root: 32 bytes, RFC 6962.

    Raises:
        InvalidInputError: ``checkpoint.malformed``.

    >>> Checkpoint("clinic-0a", 2, bytes(32)).body()
    b'clinic-0a\\n2\\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\\n'

    Source: C2SP tlog-checkpoint.
    """

    origin: str
    tree_size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or any(character < " " for character in self.origin):
            raise InvalidInputError("checkpoint.malformed")
        if not 0 <= self.tree_size <= MAX_TREE_SIZE or len(self.root) != _HASH_BYTES:
            raise InvalidInputError("checkpoint.malformed")

    def body(self) -> bytes:
        """The three lines that are signed, without extension lines."""
        return f"{self.origin}\n{self.tree_size}\n{b64encode(self.root).decode()}\n".encode()

    @classmethod
    def parse(cls, body: bytes, *, allow_extensions: bool = False) -> Checkpoint:
        """Reads a body.

        Args:
            allow_extensions: take lines after the third, which our own logs never write; they are not kept.

        Raises:
            InvalidInputError: ``checkpoint.malformed``.
        """
        code = "checkpoint.malformed"
        try:
            lines = body.decode().split("\n")
        except UnicodeDecodeError:
            raise InvalidInputError(code) from None
        if len(lines) < 4 or lines[-1] or "" in lines[:-1] or (len(lines) > 4 and not allow_extensions):
            raise InvalidInputError(code)
        return cls(lines[0], decode_decimal(lines[1], code), decode_base64(lines[2], code))

    def verify_extends(self, older: Checkpoint, proof: Sequence[bytes]) -> None:
        """Checks that this tree begins with the whole tree of an older checkpoint of the same log.

        Raises:
            VerificationError: ``checkpoint.wrong_origin``, ``proof.…``.
        """
        if older.origin != self.origin:
            raise VerificationError("checkpoint.wrong_origin")
        verify_consistency(older.tree_size, self.tree_size, older.root, self.root, list(proof))


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The note of a log about itself, signed under its origin as key name."""
    named = VerifierKey(checkpoint.origin, LOG_SIGNATURE, key.public_key)
    body = checkpoint.body()
    return Note(body, (NoteSignature(named.name, named.key_id, key.sign(body)),)).render()


def open_checkpoint(
    note: bytes,
    key: str | VerifierKey,
    *,
    witnesses: Iterable[str | VerifierKey] = (),
    quorum: int = 0,
) -> Checkpoint:
    """The checkpoint in a note, once the log's own signature and enough cosignatures are verified.

    Args:
        note: checkpoint text with its signature lines.
        key: the log's verifier key; its name must be the origin.
        witnesses: keys of witnesses that are trusted.
        quorum: how many of them, by distinct public keys, must have cosigned.

    Raises:
        VerificationError: ``checkpoint.not_signed`` (no signature by the key), ``checkpoint.signature_invalid``,
            ``checkpoint.wrong_origin``, ``checkpoint.quorum_missed``.
        InvalidInputError: ``note.…``, ``checkpoint.malformed``, ``verifier_key.malformed``.

    Source: C2SP tlog-checkpoint, C2SP tlog-cosignature.
    """
    parsed, log_key = Note.parse(note), _decoded(key)
    verify_note(parsed, log_key)
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != log_key.name:
        raise VerificationError("checkpoint.wrong_origin")
    cosigned = {
        witness.public_key
        for witness in map(_decoded, witnesses)
        if parsed.signatures_by(witness) and verify_cosignature(parsed, witness) > 0
    }
    if len(cosigned) < quorum:
        raise VerificationError("checkpoint.quorum_missed", {"cosignatures": len(cosigned), "quorum": quorum})
    return checkpoint


def verify_note(note: Note, key: VerifierKey) -> None:
    """Checks that a note carries a log's signature, and that every signature under that key holds.

    Raises:
        VerificationError: ``checkpoint.not_signed``, ``checkpoint.signature_invalid``.
    """
    if key.algorithm != LOG_SIGNATURE:
        raise InvalidInputError("verifier_key.wrong_algorithm")
    signatures = note.signatures_by(key)
    if not signatures:
        raise VerificationError("checkpoint.not_signed")
    for signature in signatures:
        _verify_ed25519(key, note.text, signature, "checkpoint.signature_invalid")


def cosign(note: bytes | Note, key: SigningKey, name: str, *, timestamp: int) -> str:
    """A witness's signature line for a note, to be appended to it.

    Args:
        note: what is cosigned; the caller has checked it.
        key: the witness's key, used for no other name.
        name: the witness's name.
        timestamp: seconds since 1970, at least 1.

    Source: C2SP tlog-cosignature, "Ed25519 signed message".
    """
    parsed = note if isinstance(note, Note) else Note.parse(note)
    if not 0 < timestamp <= MAX_TREE_SIZE:
        raise InvalidInputError("cosignature.bad_time")
    named = VerifierKey(name, COSIGNATURE, key.public_key)
    signature = key.sign(_cosigned_message(parsed.text, timestamp))
    return NoteSignature(name, named.key_id, timestamp.to_bytes(_TIME_BYTES, "big") + signature).render()


def verify_cosignature(note: bytes | Note, key: str | VerifierKey) -> int:
    """When a witness cosigned a note, in seconds since 1970; the newest of several.

    Raises:
        VerificationError: ``cosignature.missing``, ``cosignature.invalid``.

    Source: C2SP tlog-cosignature.
    """
    parsed, witness = note if isinstance(note, Note) else Note.parse(note), _decoded(key)
    if witness.algorithm != COSIGNATURE:
        raise InvalidInputError("verifier_key.wrong_algorithm")
    signatures = parsed.signatures_by(witness)
    if not signatures:
        raise VerificationError("cosignature.missing")
    newest = 0
    for timed in signatures:
        timestamp = int.from_bytes(timed[:_TIME_BYTES], "big")
        if not 0 < timestamp <= MAX_TREE_SIZE:
            raise VerificationError("cosignature.invalid")
        message = _cosigned_message(parsed.text, timestamp)
        _verify_ed25519(witness, message, timed[_TIME_BYTES:], "cosignature.invalid")
        newest = max(newest, timestamp)
    return newest


def add_signatures(note: bytes, lines: Iterable[str]) -> bytes:
    """The note with further signature lines; a line by a key that has signed already replaces the older one.

    Raises:
        InvalidInputError: ``note.…``.
    """
    parsed = Note.parse(note)
    kept = {(each.name, each.key_id): each for each in parsed.signatures}
    kept |= {(each.name, each.key_id): each for each in map(NoteSignature.parse, lines)}
    return Note(parsed.text, tuple(kept.values())).render()


def _cosigned_message(text: bytes, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n".encode() + text


def _verify_ed25519(key: VerifierKey, message: bytes, signature: bytes, code: str) -> None:
    if len(signature) != _SIGNATURE_BYTES:
        raise VerificationError(code)
    try:
        verify_signature(key.public_key, message, signature)
    except VerificationError:
        raise VerificationError(code) from None


def _decoded(key: str | VerifierKey) -> VerifierKey:
    return key if isinstance(key, VerifierKey) else VerifierKey.decode(key)


def _is_key_name(name: str) -> bool:
    if not name or "+" in name:
        return False
    # A surrogate is a byte of the command line that is no UTF-8.
    return not any(character.isspace() or character < " " or "\ud800" <= character <= "\udfff" for character in name)
