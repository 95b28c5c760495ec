"""The strict CBOR profile, slow and readable: what rust/core/src/cbor.rs must agree with.

Source: RFC 8949 sections 3 and 4.2.1, narrowed by docs/formats.md.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

MAX_DEPTH = 8


class Refused(ValueError):
    """Outside the profile."""


def encode(value: object, open_containers: int = 0) -> bytes:
    """The one encoding of ``value``."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise Refused("integer")
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        if unicodedata.normalize("NFC", value) != value:
            raise Refused("not NFC")
        return head(3, len(value.encode())) + value.encode()
    if open_containers == MAX_DEPTH:
        raise Refused("depth")
    if isinstance(value, (tuple, list)):
        return head(4, len(value)) + b"".join(encode(item, open_containers + 1) for item in value)
    if isinstance(value, Mapping):
        pairs = sorted((encode(key), encode(item, open_containers + 1)) for key, item in value.items())
        return head(5, len(pairs)) + b"".join(key + item for key, item in pairs)
    raise Refused("type")


def head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    raise Refused("argument")


def decode(data: bytes) -> object:
    """Reads leniently, then takes only what the encoder would have written: the definition of "strict"."""
    value, rest = _item(data)
    if rest or encode(value) != data:
        raise Refused("not the encoder's output")
    return value


def _item(data: bytes) -> tuple[object, bytes]:
    if not data:
        raise Refused("truncated")
    major, short, rest = data[0] >> 5, data[0] & 31, data[1:]
    if major == 7:
        simple: dict[int, object] = {20: False, 21: True, 22: None}
        if short not in simple:
            raise Refused("simple value or float")
        return simple[short], rest
    if short > 27:
        raise Refused("indefinite or reserved")
    argument = short
    if short >= 24:
        size = 1 << (short - 24)
        if len(rest) < size:
            raise Refused("truncated")
        argument, rest = int.from_bytes(rest[:size], "big"), rest[size:]
    if major == 0:
        return argument, rest
    if major == 1:
        return -1 - argument, rest
    if major in (2, 3):
        if len(rest) < argument:
            raise Refused("truncated")
        body, rest = rest[:argument], rest[argument:]
        return (body if major == 2 else body.decode()), rest
    if major == 4:
        items = []
        for _ in range(argument):
            item, rest = _item(rest)
            items.append(item)
        return tuple(items), rest
    if major == 5:
        pairs: dict[int, object] = {}
        for _ in range(argument):
            key, rest = _item(rest)
            if type(key) is not int:
                raise Refused("key")
            pairs[key], rest = _item(rest)
        return pairs, rest
    raise Refused("tag")
