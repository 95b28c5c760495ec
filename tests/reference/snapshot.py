"""Range proofs and snapshots by their definition, and the generated snapshot behind the pinned encodings.

Source: docs/formats.md, "Snapshot"; the generated one has its twin in rust/core/tests/snapshot.rs.
"""

from __future__ import annotations

import blake3

from tests.reference import log
from tests.reference.cbor import encode
from tests.reference.trie import EMPTY, State, half, root

TOP = 1 << 256


def digest_of(stored: bytes) -> bytes:
    return blake3.blake3(stored).digest()


def prove_range(state: State, start: bytes, end: bytes | None, low: int = 0, depth: int = 0) -> bytes:
    """The walk below a prefix; ``state`` holds what lies below it."""
    high = low + (TOP >> depth)
    first, after = int.from_bytes(start), TOP if end is None else int.from_bytes(end)
    if high <= first or low >= after:
        return b"\0" if not state else b"\1" + root(state, depth)
    if first <= low and high <= after:
        return b""
    if not state:
        return b"\0"
    if len(state) == 1:
        ((path, stored),) = state.items()
        inside = first <= int.from_bytes(path) < after
        return b"\4" if inside else b"\3" + path + digest_of(stored)
    left = prove_range(half(state, depth, 0), start, end, low, depth + 1)
    right = prove_range(half(state, depth, 1), start, end, low + (TOP >> (depth + 1)), depth + 1)
    return b"\2" + left + right


def chunks(state: State, weight: int) -> list[bytes]:
    """The state chunks, each ending once its entries weigh that much."""
    rest = sorted(state.items())
    start, found = EMPTY, []
    while True:
        taken, weighed = [], 0
        while rest and weighed < weight:
            path, stored = rest.pop(0)
            taken.append((path, stored))
            weighed += len(path) + len(stored)
        end = rest[0][0] if rest else None
        found.append(encode((1, 2, start, end, tuple(taken), prove_range(state, start, end))))
        if end is None:
            return found
        start = end


def generated() -> tuple[list[bytes], State, list[bytes]]:
    """(parts, state, leaves) of the pinned snapshot: 50 keys, a log of 40 leaves of which it brings the last 30."""
    state = {digest_of(number.to_bytes(8, "little")): bytes([number]) * 20 for number in range(50)}
    leaves = [bytes([1, number]) for number in range(39)]
    chain = "test-" + "0" * 32
    previous = log.root(leaves[:30])
    leaves.append(b"\2" + encode((1, chain, 3, 3, 5, 30, 9, previous, root(state), bytes([4]) * 32)))
    frontier = (log.root(leaves[:8]), log.root(leaves[8:10]))
    head = encode((1, 0, chain, 3, 40, 10, frontier))
    first, second = encode((1, 1, 10, tuple(leaves[10:25]))), encode((1, 1, 25, tuple(leaves[25:])))
    return [head, first, second, *chunks(state, 600)], state, leaves
