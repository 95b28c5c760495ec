"""The state view written for reading: plain dictionaries, no path caches, the slow CBOR, blake3-py.

Twin of `ehrfast._core.StateView` and `WriteSet`; a difference between the two is a fault in one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import blake3

from tests.reference import cbor
from tests.reference.cbor import encode

BLIND_BYTES = 16
FRAMES_MAX = 8
KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 64 * 1024

Overlay = dict[bytes, bytes | None]


def keyed(use: str, data: bytes) -> bytes:
    key = blake3.blake3(b"", derive_key_context=f"ehrfast 2026-11 {use} v1").digest()
    return blake3.blake3(data, key=key).digest()


def decode(data: bytes) -> Any:
    return _immutable(cbor.decode(data))


def state_path(contract: str, key: object) -> bytes:
    encoded = encode(key)
    if len(encoded) > KEY_BYTES_MAX:
        raise ValueError("key too large")
    return keyed("path", encode((contract, key)))


def _immutable(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_immutable(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({key: _immutable(item) for key, item in value.items()})
    return value


class StateView:
    """A block's overlay over `base`, a dictionary of path to stored bytes."""

    def __init__(self, base: Mapping[bytes, bytes] | None = None, parent: StateView | None = None) -> None:
        self._below: dict[bytes, bytes] = dict(base or {})
        if parent is not None:
            for path, stored in [*parent._below.items(), *parent._block.items()]:
                if stored is None:
                    self._below.pop(path, None)
                else:
                    self._below[path] = stored
        self._block: Overlay = {}
        self._frames: list[tuple[bytes, Overlay]] = []

    def begin(self, salt: bytes) -> None:
        if len(self._frames) >= FRAMES_MAX or len(salt) not in (16, 32):
            raise ValueError("cannot open a frame")
        self._frames.append((salt, {}))

    def _stored(self, path: bytes) -> bytes | None:
        for _, writes in reversed(self._frames):
            if path in writes:
                return writes[path]
        return self._block[path] if path in self._block else self._below.get(path)

    def get_bytes(self, contract: str, key: object) -> bytes | None:
        stored = self._stored(state_path(contract, key))
        return None if stored is None else stored[BLIND_BYTES:]

    def get(self, contract: str, key: object) -> Any:
        value = self.get_bytes(contract, key)
        return None if value is None else decode(value)

    def put(self, contract: str, key: object, value: object) -> None:
        path, encoded = state_path(contract, key), encode(value)
        if len(encoded) > VALUE_BYTES_MAX:
            raise ValueError("value too large")
        salt, writes = self._frames[-1]
        if self.get_bytes(contract, key) != encoded:
            writes[path] = keyed("blind", salt + path)[:BLIND_BYTES] + encoded

    def delete(self, contract: str, key: object) -> None:
        path = state_path(contract, key)
        _, writes = self._frames[-1]
        if self._stored(path) is not None:
            writes[path] = None

    def accept(self) -> int:
        """Merges the top frame down; how many keys then differ in value from what lay below."""
        _, writes = self._frames.pop()
        changed = 0
        for path, stored in writes.items():
            if _value(stored) == _value(self._stored(path)):
                continue
            changed += 1
            if self._frames:
                self._frames[-1][1][path] = stored
            elif _value(stored) == _value(self._below.get(path)):
                self._block.pop(path, None)
            else:
                self._block[path] = stored
        return changed

    def drop_frame(self) -> None:
        self._frames.pop()

    def write_set(self) -> list[tuple[bytes, bytes | None]]:
        """The last write of each path that changes something, ascending by path."""
        if self._frames:
            raise ValueError("a frame is open")
        return sorted(self._block.items())


def _value(stored: bytes | None) -> bytes | None:
    return None if stored is None else stored[BLIND_BYTES:]
