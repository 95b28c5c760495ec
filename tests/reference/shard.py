"""Shard blocks by their definition: the part of a state that a write set needs, and the checks one after another.

Source: docs/formats.md, "Shards"; twin of rust/core/src/shard.rs and merkle/partial.rs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.reference import cbor, log, trie
from tests.reference.state import keyed
from tests.reference.transaction import EXTERNAL_AAD

HOUR_MS = 60 * 60 * 1000
Writes = Sequence[tuple[bytes, bytes | None]]


def jump(subject: bytes, count: int) -> int:
    """The shard of a subject. Source: Lamping, Veach, A Fast, Minimal Memory, Consistent Hash Algorithm."""
    key, shard, candidate = int.from_bytes(subject[:8]), 0, 0
    while candidate < count:
        shard = candidate
        key = (key * 2862933555777941757 + 1) % 2**64
        candidate = (shard + 1) * 2**31 // ((key >> 33) + 1)
    return shard


# ── the part of a state ──

Part = tuple[object, ...]  # ("empty",) · ("closed", hash) · ("leaf", path, digest) · ("node", left, right)


def shut(state: trie.State, depth: int) -> Part:
    return ("closed", trie.root(state, depth)) if state else ("empty",)


def part(state: trie.State, writes: Mapping[bytes, bytes | None], depth: int = 0) -> Part:
    """What of a state these writes need."""
    if not writes:
        return shut(state, depth)
    if len(state) < 2:
        return next((("leaf", path, blake3.blake3(stored).digest()) for path, stored in state.items()), ("empty",))
    children: list[Part] = []
    for side in (0, 1):
        own, other = trie.half(state, depth, side), trie.half(state, depth, 1 - side)
        into_own, into_other = trie.half(writes, depth, side), trie.half(writes, depth, 1 - side)
        emptied = other and not after(other, into_other)
        if not into_own and own and emptied:
            # What lies beside an emptied subtree is opened one node deep: a leaf there is lifted, a node is not.
            if len(own) == 1:
                ((path, stored),) = own.items()
                children.append(("leaf", path, blake3.blake3(stored).digest()))
            else:
                halves = [trie.half(own, depth + 1, below) for below in (0, 1)]
                children.append(("node", *(shut(half, depth + 2) for half in halves)))
        else:
            children.append(part(own, into_own, depth + 1))
    return ("node", *children)


def after(state: trie.State, writes: Mapping[bytes, bytes | None]) -> dict[bytes, bytes]:
    merged = {**state, **writes}
    return {path: stored for path, stored in merged.items() if stored is not None}


def encode_part(top: Part) -> bytes:
    kinds: list[int] = []
    hashes: list[bytes] = []

    def walk(item: Part) -> None:
        kinds.append(("empty", "closed", "leaf", "node").index(str(item[0])))
        for field in item[1:]:
            if isinstance(field, bytes):
                hashes.append(field)
            elif isinstance(field, tuple):
                walk(field)

    walk(top)
    bits = "".join(f"{kind:02b}" for kind in kinds)
    shape = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    return cbor.encode((1, shape, b"".join(hashes)))


def encode(leaves: object, transactions: object, receipts: object, writes: Writes, top: Part) -> bytes:
    """The shard block."""
    sections = [leaves, transactions, receipts, (1, tuple(writes))]
    return cbor.encode((1, *(cbor.encode(section) for section in sections), encode_part(top)))


# ── validating ──


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a chain stands, and, since nothing here need be small, its whole log and state."""

    chain_id: str
    next_height: int
    time_ms: int
    leaves: tuple[bytes, ...]
    state: Mapping[bytes, bytes]


class Refused(ValueError):
    """code, position."""


def refuse(holds: bool, code: str, position: int | None = None) -> None:
    if not holds:
        raise Refused(f"shard.{code}", position)


def lenient(data: bytes, code: str, position: int | None = None) -> object:
    try:
        return cbor.decode(data)
    except ValueError:
        raise Refused(f"shard.{code}", position) from None


def section_list(data: bytes, number: int) -> list[bytes]:
    items = lenient(data, "section_malformed", number)
    refuse(isinstance(items, tuple) and all(isinstance(item, bytes) for item in items), "section_malformed", number)
    assert isinstance(items, tuple)
    return list(items)


def read_writes(data: bytes) -> list[tuple[bytes, bytes | None]]:
    match lenient(data, "section_malformed", 3):
        case (1, tuple() as rows):
            pass
        case _:
            raise Refused("shard.section_malformed", 3)
    writes: list[tuple[bytes, bytes | None]] = []
    for number, row in enumerate(rows):
        match row:
            case (bytes(path), None) if len(path) == 32:
                stored = None
            case (bytes(path), bytes(stored)) if len(path) == 32:
                pass
            case _:
                raise Refused("shard.section_malformed", 3)
        refuse(not writes or writes[-1][0] < path, "write_set_malformed", number)
        refuse(stored is None or 17 <= len(stored) <= 65552, "write_set_malformed", number)
        writes.append((path, stored))
    return writes


def read_block_leaf(leaf: bytes) -> tuple[object, ...]:
    """As rust/core/src/block.rs reads it: version, chain id, height, engine height, time, first index, count, roots."""
    try:
        refuse(leaf[:1] == b"\x02" and len(leaf) <= 256, "block_leaf")
        value = cbor.decode(leaf[1:])
    except ValueError:
        raise Refused("shard.block_leaf", None) from None
    match value:
        case (1, str(chain), *numbers, bytes(previous), bytes(state), bytes(proposer)) if len(numbers) == 5:
            sound = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            sound = sound and all(len(digest) == 32 for digest in (previous, state, proposer))
            sound = sound and numbers[4] > 0 and numbers[3] + numbers[4] + 1 < 2**63
            name, _, digits = chain.rpartition("-")
            sound = sound and 1 <= len(name) <= 17 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
            sound = sound and len(digits) == 32 and set(digits) <= set("0123456789abcdef")
            refuse(sound, "block_leaf")
            return value
        case _:
            raise Refused("shard.block_leaf", None)


def transaction_of(received: bytes) -> tuple[bytes, dict[int, object], bytes, bytes]:
    """(key, payload, what is signed, signature); the strictness inside a payload is not repeated here."""
    refuse(received[:1] == b"\xd2" and len(received) <= 320 * 1024, "transaction_malformed")
    match lenient(received[1:], "transaction_malformed"):
        case (bytes(protected), dict() as unprotected, bytes(payload), bytes(signature)):
            pass
        case _:
            raise Refused("shard.transaction_malformed", None)
    refuse(not unprotected and len(signature) == 64, "transaction_malformed")
    refuse(len(protected) == 38 and protected[:6] == bytes.fromhex("a20132045820"), "transaction_malformed")
    call = lenient(payload, "transaction_malformed")
    refuse(isinstance(call, dict), "transaction_malformed")
    assert isinstance(call, dict)
    signed = cbor.encode(("Signature1", protected, EXTERNAL_AAD, payload))
    return protected[6:], call, signed, signature


def validate(tip: Tip, block: bytes, log_root: bytes | None) -> Tip:
    """Where the chain stands after the block; raises Refused with the code and position of the first fault."""
    outer = lenient(block, "malformed")
    refuse(isinstance(outer, tuple) and len(outer) == 6 and outer[0] == 1, "malformed")
    assert isinstance(outer, tuple)
    refuse(all(isinstance(section, bytes) for section in outer[1:]), "malformed")
    leaves, transactions, receipts = (section_list(outer[1 + number], number) for number in range(3))
    writes = read_writes(outer[4])
    refuse(bool(leaves), "block_leaf")
    _, chain, height, _, time_ms, first, count, previous, state_root, _ = read_block_leaf(leaves[-1])
    entries = leaves[:-1]
    refuse(count == len(entries), "leaf_count")
    refuse(chain == tip.chain_id, "chain_id")
    refuse(height == tip.next_height, "height")
    assert isinstance(time_ms, int)
    assert isinstance(first, int)
    refuse(height == 0 or time_ms > tip.time_ms, "time")
    refuse(first == len(tip.leaves), "first_index")
    refuse(previous == log.root(tip.leaves), "previous_root")
    refuse(len(receipts) == (0 if height == 0 else len(entries)), "receipt_count")
    refuse(len(transactions) == sum(leaf[:1] == b"\x01" for leaf in entries), "transaction_count")
    waiting = iter(transactions)
    ids: list[bytes] = []
    signatures: list[tuple[int, bytes, bytes, bytes]] = []
    for position, leaf in enumerate(entries):
        kind, length = leaf[:1], len(leaf)
        received = next(waiting) if kind == b"\x01" else b""
        if kind == b"\x00" and length == 33 and height == 0 and len(entries) == 1:
            refuse(leaf[1:17].hex() == tip.chain_id[-32:], "genesis", position)
            ids.append(leaf[1:33])
            continue
        refuse((kind, length) in ((b"\x01", 97), (b"\x03", 65)) and height != 0, "leaf_kind", position)
        if kind == b"\x01":
            try:
                key, call, signed, signature = transaction_of(received)
            except Refused as refused:
                raise Refused(refused.args[0], position) from None
            expires = call[6]
            assert isinstance(expires, int)
            refuse(call[1] == tip.chain_id, "transaction_chain", position)
            refuse(expires > time_ms, "expired", position)
            refuse(expires <= time_ms + HOUR_MS, "too_early", position)
            id = blake3.blake3(signed).digest()
            refuse(leaf[1:33] == id, "leaf_id", position)
            refuse(leaf[33:65] == hashlib.sha256(received).digest(), "leaf_received", position)
            signatures.append((position, key, signed, signature))
        id = leaf[1:33]
        refuse(leaf[-32:] == blake3.blake3(receipts[position]).digest(), "leaf_receipt", position)
        receipt = lenient(receipts[position], "receipt", position)
        refuse(isinstance(receipt, tuple) and len(receipt) == 7, "receipt", position)
        assert isinstance(receipt, tuple)
        refuse(receipt[:3] == (id, height, first + position), "receipt", position)
        ids.append(id)
    for position, id in enumerate(ids):
        refuse(id not in ids[:position], "repeated", position)
    for position, key, signed, signature in signatures:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        except InvalidSignature:
            raise Refused("shard.signature", position) from None
    state = check_writes(tip.state, writes, outer[5])
    refuse(trie.root(state) == state_root, "state_root")
    whole = (*tip.leaves, *leaves)
    refuse(log_root is None or log_root == log.root(whole), "log_root")
    assert isinstance(height, int)
    return Tip(tip.chain_id, height + 1, time_ms, whole, state)


def check_writes(state: Mapping[bytes, bytes], writes: Writes, given: bytes) -> dict[bytes, bytes]:
    """The state after; the part must be the one that these writes need. Which of the names of a wrong part is given
    depends on how it is wrong, so the twin says only `proof`."""
    for position, (path, stored) in enumerate(writes):
        refuse(state.get(path) != stored, "no_change", position)
    refuse(given == encode_part(part(state, dict(writes))), "proof")
    return after(state, dict(writes))


def part_root(data: bytes) -> bytes:
    """The root of an encoded part, whatever state it is of."""
    match cbor.decode(data):
        case (1, bytes(shape), bytes(hashes)):
            pass
        case _:
            raise Refused("shard.proof_malformed", None)
    kinds = iter([byte >> shift & 3 for byte in shape for shift in (6, 4, 2, 0)])
    taken = iter([hashes[at : at + 32] for at in range(0, len(hashes), 32)])

    def walk() -> bytes:
        kind = next(kinds)
        if kind == 0:
            return trie.EMPTY
        if kind == 1:
            return next(taken)
        if kind == 2:
            return trie.leaf(next(taken), next(taken))
        return keyed("node", walk() + walk())

    return walk()
