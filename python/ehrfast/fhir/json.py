"""FHIR JSON in and out without changing a decimal: 1.50 stays 1.50.

FHIR R4 section 2.24.0.1 makes the precision of a decimal part of its meaning, so numbers with a fraction or an exponent
are read as `ExactDecimal` and written as they came.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from ehrfast.errors import InvalidInputError


class ExactDecimal(Decimal):
    """A decimal that remembers how it was written."""

    written: str

    def __new__(cls, text: str) -> ExactDecimal:
        number = super().__new__(cls, text)
        number.written = text
        return number

    def __reduce__(self) -> tuple[type[ExactDecimal], tuple[str]]:
        return type(self), (self.written,)


def loads(content: bytes) -> dict[str, Any]:
    """Reads one resource.

    Raises:
        InvalidInputError: ``fhir.invalid_json`` or ``fhir.not_fhir``.
    """
    try:
        value = json.loads(content, parse_float=ExactDecimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, ArithmeticError):  # the last: an exponent beyond any decimal
        raise InvalidInputError("fhir.invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidInputError("fhir.not_fhir")
    return value


def dumps(resource: dict[str, Any]) -> bytes:
    """Writes one resource as compact UTF-8; members keep their order, decimals their digits.

    Raises:
        InvalidInputError: ``fhir.unsupported_value`` for anything JSON has no form for, ``fhir.too_deep`` beyond 64
        levels.
    """
    parts: list[str] = []
    _write(resource, parts, 64)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:  # half a surrogate pair; the exception would quote the text
        raise InvalidInputError("fhir.unsupported_value") from None


def _write(value: object, parts: list[str], depth: int) -> None:
    if depth == 0:
        raise InvalidInputError("fhir.too_deep")
    if isinstance(value, dict):
        _write_members(value, parts, depth)
    elif isinstance(value, (list, tuple)):
        parts.append("[")
        for number, item in enumerate(value):
            if number:
                parts.append(",")
            _write(item, parts, depth - 1)
        parts.append("]")
    elif isinstance(value, ExactDecimal):
        parts.append(value.written)
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise InvalidInputError("fhir.unsupported_value")
        parts.append(str(value))
    elif value is None or isinstance(value, (str, bool, int, float)):
        parts.append(_scalar(value))
    else:
        raise InvalidInputError("fhir.unsupported_value")


def _write_members(members: dict[Any, object], parts: list[str], depth: int) -> None:
    parts.append("{")
    for number, (name, item) in enumerate(members.items()):
        if not isinstance(name, str):
            raise InvalidInputError("fhir.unsupported_value")
        parts.append("," if number else "")
        parts.append(_scalar(name) + ":")
        _write(item, parts, depth - 1)
    parts.append("}")


def _scalar(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise InvalidInputError("fhir.unsupported_value") from None


def _refuse_constant(_: str) -> object:
    raise ValueError
