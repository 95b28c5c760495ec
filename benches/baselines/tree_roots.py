"""Tree roots as one writes them in Python: a hash object for each node, a level at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from blake3 import blake3


def rfc6962_root(leaves: Sequence[bytes]) -> bytes:
    """The RFC 6962 root by hashlib; so many leaves that every level is even, or one."""
    level = [sha256(b"\0" + leaf).digest() for leaf in leaves]
    return _up(level, lambda pair: sha256(b"\1" + pair).digest())


def sha256_root(digests: Sequence[bytes]) -> bytes:
    """The same shape over digests, without prefixes: what a tree of plain digests costs with hashlib."""
    return _up(list(digests), lambda pair: sha256(pair).digest())


def blake3_root(digests: Sequence[bytes], key: bytes) -> bytes:
    """The inner root of a pack by the `blake3` package."""
    return _up(list(digests), lambda pair: blake3(pair, key=key).digest())


def _up(level: list[bytes], node: Callable[[bytes], bytes]) -> bytes:
    while len(level) > 1:
        level = [node(left + right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]
