"""Block leaves and the leaves of entries, written from docs/formats.md; twin of rust/core/src/block.rs.

``generated`` is the seeded generation behind the pinned hashes of tests/vectors/formats.toml; its twin is
rust/core/tests/block.rs.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

import blake3

from tests.reference.cbor import encode


@dataclass(frozen=True, slots=True)
class BlockLeaf:
    chain_id: str
    height: int
    engine_height: int
    time_ms: int
    first_index: int
    leaf_count: int
    previous_root: bytes
    state_root: bytes
    proposer: bytes

    def encode(self) -> bytes:
        return b"\x02" + encode((1, *astuple(self)))


def genesis_leaf(genesis: bytes) -> bytes:
    return b"\x00" + blake3.blake3(genesis).digest()


def transaction_leaf(id: bytes, received: bytes, receipt: bytes) -> bytes:
    return b"\x01" + id + hashlib.sha256(received).digest() + blake3.blake3(receipt).digest()


def timer_leaf(timer_id: bytes, receipt: bytes) -> bytes:
    return b"\x03" + timer_id + blake3.blake3(receipt).digest()


def generated(number: int) -> BlockLeaf:
    """The block leaf of that number, from 32-byte draws of the BLAKE3 output of its label."""
    output = blake3.blake3(f"ehrfast block leaf vector {number}".encode()).digest(length=32 * 10)
    draws = [output[at : at + 32] for at in range(0, len(output), 32)]
    name = "".join(chr(ord("a") + byte % 26) for byte in draws[0][: 1 + number % 17])
    # Eight bytes shifted by 2 to 63 bits, so that all magnitudes occur.
    numbers = [int.from_bytes(draw[:8], "big") >> (2 + draw[8] % 62) for draw in draws[2:7]]
    height, engine_height, time_ms, first_index, leaf_count = numbers
    chain_id = f"{name}-{draws[1][:16].hex()}"
    return BlockLeaf(chain_id, height, engine_height, time_ms, first_index, max(leaf_count, 1), *draws[7:])
