"""The state trie by its definition: every root and proof from the whole set of leaves, nothing kept.

Source: docs/formats.md, "State trie". ``generated`` is the seeded set behind the pinned proofs of
tests/vectors/formats.toml; its twin is rust/core/tests/trie.rs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import blake3

from tests.reference.cbor import decode, encode
from tests.reference.state import keyed

EMPTY = bytes(32)
State = Mapping[bytes, bytes]  # path -> stored


class Refused(ValueError):
    """The proof does not hold."""


def bit(path: bytes, depth: int) -> int:
    return path[depth // 8] >> (7 - depth % 8) & 1


def leaf(path: bytes, digest: bytes) -> bytes:
    return keyed("leaf", path + digest)


def root(state: State, depth: int = 0) -> bytes:
    if not state:
        return EMPTY
    if len(state) == 1:
        ((path, stored),) = state.items()
        return leaf(path, blake3.blake3(stored).digest())
    return keyed("node", root(half(state, depth, 0), depth + 1) + root(half(state, depth, 1), depth + 1))


def half(state: State, depth: int, side: int) -> State:
    return {path: stored for path, stored in state.items() if bit(path, depth) == side}


@dataclass(frozen=True, slots=True)
class Proof:
    siblings: tuple[bytes, ...]  # from the root down
    found: bool | tuple[bytes, bytes]  # own leaf · nothing · (path, digest) of another

    def encode(self) -> bytes:
        bitmap = bytearray((len(self.siblings) + 7) // 8)
        for level, sibling in enumerate(self.siblings):
            if sibling == EMPTY:
                bitmap[level // 8] |= 0x80 >> level % 8
        present = b"".join(sibling for sibling in self.siblings if sibling != EMPTY)
        found = self.found if isinstance(self.found, bool) else b"".join(self.found)
        return encode((1, len(self.siblings), bytes(bitmap), present, found))


def prove(state: State, path: bytes) -> Proof:
    siblings: list[bytes] = []
    while len(state) > 1:
        depth = len(siblings)
        siblings.append(root(half(state, depth, 1 - bit(path, depth)), depth + 1))
        state = half(state, depth, bit(path, depth))
    if not state:
        return Proof(tuple(siblings), False)
    ((found, stored),) = state.items()
    return Proof(tuple(siblings), True if found == path else (found, blake3.blake3(stored).digest()))


def read(proof: bytes) -> Proof:
    """Reads leniently, then takes only what ``Proof.encode`` would have written."""
    match decode(proof):
        case (1, int(depth), bytes(bitmap), bytes(present), bool() | bytes() as found) if depth <= 256:
            pass
        case _:
            raise Refused("shape")
    hashes = [present[at : at + 32] for at in range(0, len(present), 32)]
    siblings: list[bytes] = []
    for level in range(depth):
        empty = level // 8 < len(bitmap) and bitmap[level // 8] & 0x80 >> level % 8
        if not empty and not hashes:
            raise Refused("too few siblings")
        siblings.append(EMPTY if empty else hashes.pop(0))
    decoded = Proof(tuple(siblings), found if isinstance(found, bool) else (found[:32], found[32:]))
    if decoded.encode() != proof or (isinstance(found, bytes) and len(found) != 64):
        raise Refused("not the encoder's output")
    return decoded


def verify(trusted_root: bytes, path: bytes, stored: bytes | None, proof: bytes) -> None:
    claim = read(proof)
    depth = len(claim.siblings)
    if claim.found is True and stored is not None:
        computed = leaf(path, blake3.blake3(stored).digest())
    elif claim.found is False and stored is None:
        computed = EMPTY
    elif isinstance(claim.found, tuple) and stored is None:
        other, digest = claim.found
        if other == path or any(bit(other, level) != bit(path, level) for level in range(depth)):
            raise Refused("the other leaf proves nothing")
        computed = leaf(other, digest)
    else:
        raise Refused("the opposite is proven")
    if claim.siblings and claim.siblings[-1] == EMPTY:
        raise Refused("not lifted")
    for level in reversed(range(depth)):
        sibling = claim.siblings[level]
        computed = keyed("node", sibling + computed if bit(path, level) else computed + sibling)
    if computed != trusted_root:
        raise Refused("another root")


def generated() -> tuple[dict[bytes, bytes], list[bytes]]:
    """The pinned state of 200 keys, 40 of them close to another, and 100 paths that it does not hold."""
    output = blake3.blake3(b"ehrfast state trie vector").digest(length=32 * 260)
    draws = [output[at : at + 32] for at in range(0, len(output), 32)]
    # Flipping one of the last 200 bits makes a neighbour on a long common way.
    close = [flipped(path, 56 + 5 * number) for number, path in enumerate(draws[:40])]
    state = {path: path[16:] + bytes([number]) for number, path in enumerate(draws[:160] + close)}
    return state, draws[160:]


def flipped(path: bytes, at: int) -> bytes:
    changed = bytearray(path)
    changed[at // 8] ^= 0x80 >> at % 8
    return bytes(changed)


def generated_writes(number: int) -> list[tuple[bytes, bytes | None]]:
    """A write set of 0 to 19 writes, ascending by path, a quarter of them deletions."""
    output = blake3.blake3(f"ehrfast write set vector {number}".encode()).digest(length=96 * 20)
    draws = [output[at : at + 96] for at in range(0, len(output), 96)]
    writes = [(draw[:32], draw[34 : 34 + 17 + draw[33] % 46] if draw[32] % 4 else None) for draw in draws]
    return sorted(writes[: number % 20])
