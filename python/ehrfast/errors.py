"""One exception tree for everything ehrfast refuses, each with a stable code.

Details hold ids, counts and offsets; never a name, a value or any content of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class EhrfastError(Exception):
    """Base of every error ehrfast raises on purpose.

    Args:
        code: stable, dotted, for programs: ``proof.index_out_of_range``.
        details: values that help to find the place, free of patient data.
    """

    code: str
    details: Mapping[str, object]
    retryable = False

    def __init__(self, code: str, details: Mapping[str, object] | None = None) -> None:
        self.code = code
        self.details = MappingProxyType(dict(details or {}))
        super().__init__(code)

    def __reduce__(self) -> tuple[type[EhrfastError], tuple[str, dict[str, object]]]:
        return type(self), (self.code, dict(self.details))

    def __str__(self) -> str:
        if not self.details:
            return self.code
        listed = ", ".join(f"{name}={value!r}" for name, value in self.details.items())
        return f"{self.code} ({listed})"


class InvalidInputError(EhrfastError, ValueError):
    """The input breaks a rule of its format; nothing was changed."""


class VerificationError(EhrfastError):
    """A signature, proof, commitment or checkpoint does not hold."""


class DeniedError(EhrfastError, PermissionError):
    """A rule of the patient, the site or the law forbids it."""

    def __str__(self) -> str:  # PermissionError would print errno fields
        return EhrfastError.__str__(self)


class NotFoundError(EhrfastError, LookupError):
    """There is no such thing, or none that the asker may know of."""


class ConflictError(EhrfastError):
    """It contradicts what is already there: another owner, another version."""


class UnavailableError(EhrfastError):
    """Not now; the same call may succeed later."""

    retryable = True


class CorruptionError(EhrfastError):
    """Stored bytes are not what was written; the node stops writing."""
