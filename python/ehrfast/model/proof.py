"""Evidence: what a node proves and anyone checks offline, as one C2SP tlog-proof text.

The proven leaf is the last block leaf of the checkpoint; the state rows in the extra line hang off its state root.
Refuses: another origin, a leaf that is not the last, a row or sibling that does not fold to the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Literal

from ehrfast._core import (
    cbor_decode,
    cbor_encode,
    decode_block_leaf,
    log_leaf_hash,
    state_path,
    verify_inclusion,
    verify_opening,
    verify_state_proof,
)
from ehrfast.errors import InvalidInputError, VerificationError
from ehrfast.model.checkpoint import add_signatures
from ehrfast.model.key_history import MAX_HISTORY_BYTES, KeyHistory
from ehrfast.model.record import RecordRow
from ehrfast.model.tlog_proof import TlogProof

MAX_EVIDENCE_BYTES = 1 << 20
BLIND_BYTES = 16
_EXTRA_VERSION = 1
_LAST_TIME_MS = 253_402_300_799_999  # the year 9999, which is as far as a datetime goes


@dataclass(frozen=True, slots=True)
class StateRow:
    """One state value with its proof.

    Args:
        contract: whose name it is.
        key: the key as the contract knows it.
        stored: blind ‖ value, or None for absence.
        proof: canonical CBOR of the trie proof.
    """

    contract: str
    key: tuple[object, ...]
    stored: bytes | None
    proof: bytes

    @property
    def value(self) -> object:
        """The decoded value, None when absent."""
        return None if self.stored is None else cbor_decode(self.stored[BLIND_BYTES:])


@dataclass(frozen=True, slots=True)
class Evidence:
    """A proof text. With an opening key inside, treat it like the resource it opens."""

    text: bytes = field(repr=False)

    @property
    def disclosed(self) -> bool:
        """Whether it carries the record's opening key."""
        return _open_extra(TlogProof.parse(self.text))[2] is not None

    def with_signatures(self, lines: Iterable[str]) -> Evidence:
        """The same with further signature lines under its checkpoint; see `model.checkpoint.add_signatures`."""
        proof = TlogProof.parse(self.text)
        return Evidence(replace(proof, checkpoint=add_signatures(proof.checkpoint, lines)).render())

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the text to a file; readable by its owner alone when it discloses."""
        target = Path(path)
        target.touch(mode=0o600 if self.disclosed else 0o644)
        target.write_bytes(self.text)

    @staticmethod
    def load(path: str | PathLike[str]) -> Evidence:
        """Reads a file of at most 1 MiB.

        Raises:
            InvalidInputError: ``evidence.too_large``.
        """
        with Path(path).open("rb") as source:
            text = source.read(MAX_EVIDENCE_BYTES + 1)
        if len(text) > MAX_EVIDENCE_BYTES:
            raise InvalidInputError("evidence.too_large", {"limit": MAX_EVIDENCE_BYTES})
        return Evidence(text)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a piece of evidence shows once every check has passed.

    Args:
        chain_id: the chain that recorded it.
        tree_size: size of the log in the checkpoint.
        index: leaf index of the transaction that wrote the record.
        height: its block.
        time: block time of that transaction.
        as_of: block time of the checkpoint's last block: the state is proven as of then.
        record_id, version: which record version.
        record_class: which kind of record.
        author: identity that wrote it.
        custody: who holds the author's signing key, ``self`` or ``custodial``.
        content_matches: True when content was given and opened the commitment.
    """

    chain_id: str
    tree_size: int
    index: int
    height: int
    time: datetime
    as_of: datetime
    record_id: bytes
    version: int
    record_class: str
    author: bytes
    custody: Literal["self", "custodial"]
    content_matches: bool


def build_evidence(
    *,
    block_leaf: bytes,
    index: int,
    inclusion: Sequence[bytes],
    checkpoint: bytes,
    rows: Sequence[StateRow],
    opening_key: bytes | None,
) -> Evidence:
    """Puts the parts a chain proved into one text."""
    listed = tuple((row.contract, row.key, row.stored, row.proof) for row in rows)
    extra = cbor_encode((_EXTRA_VERSION, block_leaf, listed, opening_key))
    return Evidence(TlogProof(extra, index, tuple(inclusion), checkpoint).render())


def verify(
    evidence: Evidence | bytes | str | PathLike[str],
    *,
    key: str,
    content: bytes | None = None,
    max_age_ms: int | None = None,
    now_ms: int | None = None,
    witnesses: Iterable[str] = (),
    quorum: int | None = None,
    history: KeyHistory | bytes | str | PathLike[str] | None = None,
) -> Checked:
    """Checks evidence without a node.

    Args:
        evidence: the text, or the path of a file that holds it.
        key: the chain's C2SP verifier key.
        content: the resource as received; needs evidence that discloses its opening key.
        max_age_ms: how old the checkpoint's last block may be at ``now_ms``.
        witnesses: C2SP verifier keys of witnesses you trust.
        quorum: how many of them must have cosigned the checkpoint; by default all that are named.
        history: the published key history of a chain whose checkpoint key has changed, or its file: then ``key`` may be
            any of its keys, the founding one for instance. Only the newest history tells that a key is no longer in
            force.

    Returns:
        What it shows.

    Raises:
        VerificationError: with the first check that failed as code.
        InvalidInputError: the text is no evidence.

    Source: C2SP tlog-proof, C2SP tlog-checkpoint, RFC 6962 section 2.1.1.
    """
    if isinstance(evidence, (str, PathLike)):
        evidence = Evidence.load(evidence)
    text = evidence.text if isinstance(evidence, Evidence) else evidence
    proof = TlogProof.parse(text)
    named = tuple(dict.fromkeys(witnesses))
    wanted = len(named) if quorum is None else quorum
    checkpoint = _keys_of(key, history).open_checkpoint(proof.checkpoint, witnesses=named, quorum=wanted)
    block_leaf, rows, opening_key = _open_extra(proof)
    head = decode_block_leaf(block_leaf)
    if head.chain_id != checkpoint.origin:
        raise VerificationError("evidence.wrong_chain")
    if proof.index != checkpoint.tree_size - 1:
        raise VerificationError("evidence.not_last_block", {"index": proof.index})
    verify_inclusion(
        log_leaf_hash(block_leaf), proof.index, checkpoint.tree_size, list(proof.hashes), checkpoint.root
    )
    if max_age_ms is not None and (now_ms is None or head.time_ms + max_age_ms < now_ms):
        raise VerificationError("evidence.too_old", {"time_ms": head.time_ms})
    for row in rows:
        verify_state_proof(head.state_root, state_path(row.contract, row.key), row.stored, row.proof)
    record_id, version, record = _record_row(rows)
    custody = _author_custody(rows, record.author)
    if content is not None:
        if opening_key is None:
            raise VerificationError("evidence.not_disclosed")
        if not isinstance(record.commitment, bytes):
            raise VerificationError("evidence.deleted")
        verify_opening(content, opening_key, record.commitment)
    return Checked(
        chain_id=head.chain_id,
        tree_size=checkpoint.tree_size,
        index=record.index,
        height=record.height,
        time=_time(record.time_ms),
        as_of=_time(head.time_ms),
        record_id=record_id,
        version=version,
        record_class=record.record_class,
        author=record.author,
        custody=custody,
        content_matches=content is not None,
    )


def _keys_of(key: str, history: KeyHistory | bytes | str | PathLike[str] | None) -> KeyHistory:
    if isinstance(history, (str, PathLike)):
        with Path(history).open("rb") as source:
            history = source.read(MAX_HISTORY_BYTES + 1)
    if isinstance(history, bytes):
        history = KeyHistory.parse(history) if history else None
    return KeyHistory.of(key) if history is None else history.trusted_by(key)


def _open_extra(proof: TlogProof) -> tuple[bytes, tuple[StateRow, ...], bytes | None]:
    if proof.extra is None:
        raise InvalidInputError("evidence.malformed")
    value = cbor_decode(proof.extra, MAX_EVIDENCE_BYTES)
    if not (isinstance(value, tuple) and len(value) == 4 and value[0] == _EXTRA_VERSION):
        raise InvalidInputError("evidence.malformed")
    _, block_leaf, listed, opening_key = value
    shaped = isinstance(block_leaf, bytes) and isinstance(listed, tuple)
    if not shaped or not isinstance(opening_key, (bytes, type(None))) or not all(_is_row(row) for row in listed):
        raise InvalidInputError("evidence.malformed")
    return block_leaf, tuple(StateRow(*row) for row in listed), opening_key


def _is_row(row: object) -> bool:
    return (
        isinstance(row, tuple)
        and len(row) == 4
        and isinstance(row[0], str)
        and isinstance(row[1], tuple)
        and isinstance(row[2], (bytes, type(None)))
        and isinstance(row[3], bytes)
    )


def _record_row(rows: Sequence[StateRow]) -> tuple[bytes, int, RecordRow]:
    found = [row for row in rows if row.contract == "records"]
    if len(found) != 1 or found[0].stored is None or len(found[0].key) != 2:
        raise VerificationError("evidence.no_record")
    record_id, version = found[0].key
    row = RecordRow.of(found[0].value)
    if row is None or not isinstance(record_id, bytes) or not isinstance(version, int):
        raise VerificationError("evidence.no_record")
    return record_id, version, row


def _author_custody(rows: Sequence[StateRow], author: object) -> Literal["self", "custodial"]:
    for row in rows:
        if row.contract == "identity" and row.key == ("identity", author):
            match row.value:
                case (_, kind, *_):
                    return "custodial" if kind == 1 else "self"
    raise VerificationError("evidence.no_author")


def _time(time_ms: int) -> datetime:
    if not (isinstance(time_ms, int) and 0 <= time_ms <= _LAST_TIME_MS):
        raise VerificationError("evidence.time")
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC)
