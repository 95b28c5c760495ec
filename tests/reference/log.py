"""The slow twin of the log: RFC 9162 section 2.1 as it reads, over a plain list of leaves."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import blake3


def split(count: int) -> int:
    """The largest power of two below ``count``."""
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    middle = split(len(leaves))
    return node_hash(root(leaves[:middle]), root(leaves[middle:]))


def prove_inclusion(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if index < middle:
        return [*prove_inclusion(index, leaves[:middle]), root(leaves[middle:])]
    return [*prove_inclusion(index - middle, leaves[middle:]), root(leaves[:middle])]


def prove_consistency(old_size: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root(leaves)]
    middle = split(len(leaves))
    if old_size <= middle:
        return [*prove_consistency(old_size, leaves[:middle], whole=whole), root(leaves[middle:])]
    return [*prove_consistency(old_size - middle, leaves[middle:], whole=False), root(leaves[:middle])]


def frontier(leaves: Sequence[bytes]) -> list[bytes]:
    peaks = []
    while leaves:
        width = 1 << (len(leaves).bit_length() - 1)
        peaks.append(root(leaves[:width]))
        leaves = leaves[width:]
    return peaks


def tile(level: int, index: int, width: int, leaves: Sequence[bytes]) -> bytes:
    span = 256**level
    return b"".join(root(leaves[(index * 256 + i) * span : (index * 256 + i + 1) * span]) for i in range(width))


def pack_root(digests: Sequence[bytes]) -> bytes:
    def keyed(use: str, data: bytes) -> bytes:
        key = blake3.blake3(b"", derive_key_context=f"ehrfast 2026-11 {use} v1").digest()
        return bytes(blake3.blake3(data, key=key).digest())

    def inner(digests: Sequence[bytes]) -> bytes:
        if len(digests) == 1:
            return digests[0]
        middle = split(len(digests))
        return keyed("pack-node", inner(digests[:middle]) + inner(digests[middle:]))

    return keyed("pack", len(digests).to_bytes(8, "big") + (inner(digests) if digests else bytes(32)))
