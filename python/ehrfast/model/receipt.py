"""The outcome of one transaction, as bytes and as a value.

receipt = CBOR [id, height, index, code, work, write count, events]; its BLAKE3 digest is part of the leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast._core import cbor_decode, cbor_encode
from ehrfast.errors import CorruptionError, EhrfastError, InvalidInputError

MAX_RECEIPT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Receipt:
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
    index: int
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
        return cbor_encode((self.id, self.height, self.index, self.code, self.work, self.write_count, self.events))

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


_DENIED = ("not_permitted", "not_admin", "denied", "self_issue", "unknown_sender", "no_key")
_CONFLICT = ("conflict", "exists", "stale", "gap", "no_epoch", "duplicate")


def call_error(code: str) -> EhrfastError:
    """The exception a failed contract call stands for, chosen by the last word of its code."""
    from ehrfast import errors

    last = code.rsplit(".", 1)[-1]
    if last == "broken":
        return CorruptionError(code) if code.startswith("store.") else InvalidInputError(code)
    if any(word in last for word in _DENIED):
        return errors.DeniedError(code)
    if any(word in last for word in _CONFLICT):
        return errors.ConflictError(code)
    if last.startswith("unknown"):
        return errors.NotFoundError(code)
    return InvalidInputError(code)
