"""Owns every draw of the generator: words and identifiers read off a SHAKE128 stream named by (seed, number, purpose).

Nothing is drawn from a clock, the operating system or `random`, so a name gives the same stream on every platform.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TypeVar

T = TypeVar("T")

_WORDS = struct.Struct("<256I")
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_IDENTIFIERS_PER_BLOCK = 64


def _stream_name(seed: int, number: int, purpose: str) -> bytes:
    return b"ehrfast synthetic v1\0" + struct.pack("<QQ", seed, number) + purpose.encode("ascii") + b"\0"


class Draws:
    """One stream of draws. Equal (seed, number, purpose) give equal draws; different ones are unrelated."""

    __slots__ = ("_block", "_name", "_next", "_words")

    def __init__(self, seed: int, number: int, purpose: str) -> None:
        self._name = _stream_name(seed, number, purpose)
        self._block = 0
        self._words: tuple[int, ...] = ()
        self._next = 0

    def below(self, bound: int) -> int:
        """An integer in [0, bound); with bounds far under 2**32 the bias of multiply-and-shift is beyond notice."""
        if self._next == len(self._words):
            block = self._name + self._block.to_bytes(4, "little")
            self._words = _WORDS.unpack(hashlib.shake_128(block).digest(_WORDS.size))
            self._block += 1
            self._next = 0
        word = self._words[self._next]
        self._next += 1
        return (word * bound) >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def spread(self, reach: int) -> int:
        """An integer in [-reach, reach], those near zero the likeliest."""
        return self.below(reach + 1) + self.below(reach + 1) - reach

    def chance(self, permille: int) -> bool:
        """True in `permille` of 1,000 draws."""
        return self.below(1000) < permille

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`, each as likely."""
        return choices[self.below(len(choices))]


def identifiers(seed: int, number: int, purpose: str) -> Iterator[str]:
    """Endless identifiers in the form of version 4 UUIDs (RFC 9562), 122 bits each from the named stream."""
    name = _stream_name(seed, number, purpose)
    for block in count():
        digits = hashlib.shake_128(name + block.to_bytes(4, "little")).hexdigest(16 * _IDENTIFIERS_PER_BLOCK)
        for at in range(0, 32 * _IDENTIFIERS_PER_BLOCK, 32):
            yield (
                f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}-"
                f"{_VARIANT[digits[at + 16]]}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
            )
