"""The outcome of one transaction, as bytes and as a value.

receipt = CBOR [id, height, index, code, work, write count, events]; its BLAKE3 digest is part of the leaf.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ehrfast._core import cbor_decode, cbor_encode
from ehrfast.errors import ConflictError, DeniedError, EhrfastError, InvalidInputError, NotFoundError

MAX_RECEIPT_BYTES = 64 * 1024


class Receipt(NamedTuple):
    """What became of a transaction that reached its contract call.

    Args:
        id: transaction id (32 bytes) or timer id.
        height: block it is in.
        index: leaf index in the log, 0-based.
        code: 0 when applied, else the contract's stable failure code.
        work: counted steps of the call.
        write_count: state keys the call changed.
        events: ``(contract, name, values)`` in the order they were emitted.
    """

    id: bytes
    height: int
    index: int  # type: ignore[assignment]  # a field, where a plain tuple has a method nobody needs here
    code: int | str
    work: int
    write_count: int
    events: tuple[tuple[str, str, tuple[object, ...]], ...]

    @property
    def applied(self) -> bool:
        """Whether the call's writes are part of the state."""
        return self.code == 0

    def require_applied(self) -> Receipt:
        """Returns itself, or raises the failure.

        Raises:
            ConflictError, DeniedError, InvalidInputError: with the contract's code, by the kind of code it is.
        """
        if not self.applied:
            raise call_error(str(self.code))
        return self

    def encode(self) -> bytes:
        """The bytes whose digest stands in the leaf."""
        return cbor_encode(self)

    @staticmethod
    def decode(data: bytes) -> Receipt:
        """Reads a receipt.

        Raises:
            InvalidInputError: ``receipt.malformed``.
        """
        value = cbor_decode(data, MAX_RECEIPT_BYTES)
        if not (isinstance(value, tuple) and len(value) == 7 and isinstance(value[0], bytes)):
            raise InvalidInputError("receipt.malformed")
        identifier, height, index, code, work, write_count, events = value
        return Receipt(identifier, height, index, code, work, write_count, events)


_KINDS: Final[dict[type[EhrfastError], frozenset[str]]] = {
    DeniedError: frozenset({"not_permitted", "held", "not_custodian", "not_current_key", "no_key", "self_issue"}),
    NotFoundError: frozenset({"unknown", "unknown_key", "unknown_method", "no_credential", "no_hold"}),
    ConflictError: frozenset(
        {
            "already_revoked",
            "audit_final",
            "class_changed",
            "credential_exists",
            "deleted",
            "duplicate_epoch",
            "epoch_stale",
            "erased",
            "exists",
            "key_in_use",
            "hold_exists",
            "hold_released",
            "no_epoch",
            "not_pruned",
            "pack_changed",
            "pruned",
            "sequence_gap",
            "subject_erased",
            "version_conflict",
        }
    ),
}


def call_error(code: str) -> EhrfastError:
    """The exception a failed contract call stands for, by the last word of its code; any other is invalid input."""
    word = code.rsplit(".", 1)[-1]
    kind = next((kind for kind, words in _KINDS.items() if word in words), InvalidInputError)
    return kind(code)
