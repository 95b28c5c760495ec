"""The files of the stores read, and frames written, without the core: blake3-py, pyca/cryptography, our reference CBOR.

Whole files in memory, nothing fast, nothing repaired: what is not as docs/formats.md says raises ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.reference.cbor import decode, encode

SECTIONS = ("leaves", "transactions", "receipts", "write_set", "packs", "wraps")


def derive(use: str, key: bytes, info: object) -> bytes:
    """derive(use, key, info) of the page."""
    return blake3.blake3(key + encode(info), derive_key_context=f"ehrfast 2026-11 {use} v1").digest()


def keyed(use: str, data: bytes) -> bytes:
    """keyed[use](data) of the page."""
    key = blake3.blake3(b"", derive_key_context=f"ehrfast 2026-11 {use} v1").digest()
    return blake3.blake3(data, key=key).digest()


def unseal(key: bytes, sealed: bytes, aad: bytes, number: int = 0) -> bytes:
    """AES-256-GCM under a derived key, the nonce being a number."""
    try:
        return AESGCM(key).decrypt(number.to_bytes(12, "big"), sealed, aad)
    except InvalidTag:
        raise ValueError("sealed bytes do not authenticate") from None


# ── block log ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame and its place; sections decoded from CBOR."""

    offset: int
    key_id: bytes
    chain_id: str
    height: int
    previous_leaf_hash: bytes
    tree_size: int
    sections: Mapping[str, object]


def write_frame(
    sections: Mapping[str, object],
    *,
    segment_key: bytes,
    key_id: bytes,
    chain_id: str,
    height: int,
    salt: bytes,
    previous_leaf_hash: bytes,
    tree_size: int,
) -> bytes:
    """One frame of a segment."""
    contents = [encode(sections[name]) for name in SECTIONS]
    lengths = tuple(len(content) + 16 for content in contents)
    header = encode((1, key_id, chain_id, height, salt, lengths, previous_leaf_hash, tree_size))
    frame = b"ehrb" + len(header).to_bytes(4, "big") + keyed("frame-check", header)[:8] + header
    for number, content in enumerate(contents):
        key = derive("frame-section", segment_key, (salt, number))
        frame += AESGCM(key).encrypt(bytes(12), content, header + bytes([number]))
    return frame


def read_frames(segment: bytes, keys: Mapping[bytes, bytes]) -> Iterator[StoredFrame]:
    """The frames of one segment file, up to its zeros."""
    offset = 0
    while segment[offset:].strip(b"\0"):
        start = offset
        magic, length, check = segment[offset : offset + 4], segment[offset + 4 : offset + 8], segment[offset + 8 :][:8]
        offset += 16
        header = segment[offset : offset + int.from_bytes(length, "big")]
        if magic != b"ehrb" or keyed("frame-check", header)[:8] != check:
            raise ValueError(f"no frame at {start}")
        offset += len(header)
        fields = decode(header)
        assert isinstance(fields, tuple)
        version, key_id, chain_id, height, salt, lengths, previous, tree_size = fields
        if version != 1:
            raise ValueError("another version")
        sections = {}
        for number, (name, size) in enumerate(zip(SECTIONS, lengths, strict=True)):
            key = derive("frame-section", keys[key_id], (salt, number))
            sections[name] = decode(unseal(key, segment[offset : offset + size], header + bytes([number])))
            offset += size
        yield StoredFrame(start, key_id, chain_id, height, previous, tree_size, sections)


def generated_frame(number: int) -> tuple[bytes, bytes]:
    """(segment key, frame) number ``n`` of the pinned generation; its twin is in rust/core/src/store/frame.rs."""
    count, segment_key = number, bytes([number + 1]) * 32
    pack = (bytes([number]) * 32, bytes([number ^ 255]) * 32, tuple(bytes([i]) * i for i in range(count)))
    writes = tuple((bytes([i]) * 32, None if i % 3 == 2 else bytes([i]) * (16 + i)) for i in range(count))
    sections: dict[str, object] = {
        "leaves": tuple(bytes([i]) * i for i in range(count)),
        "transactions": tuple(bytes([i]) * (40 * i) for i in range(count)),
        "receipts": tuple(bytes([i]) * 3 for i in range(count)),
        "write_set": (1, writes),
        "packs": (pack,) * (number % 3),
        "wraps": (tuple(bytes([i]) * 2 for i in range(count)),) * (number % 3),
    }
    frame = write_frame(
        sections,
        segment_key=segment_key,
        key_id=bytes([number]) * 16,
        chain_id="test-" + "0" * 32,
        height=number,
        salt=bytes([number + 2]) * 32,
        previous_leaf_hash=bytes([number + 3]) * 32,
        tree_size=1000 + number,
    )
    return segment_key, frame


# ── state database ──────────────────────────────────────────────────────────────────────────────────────────────


def open_row(row: bytes, state_key: bytes, aad: bytes) -> bytes:
    """A row of the state database: salt (16), number (4), sealed value."""
    key = derive("state-value", state_key, (row[:16],))
    return unseal(key, row[20:], aad, int.from_bytes(row[16:20], "big"))


# ── key store ───────────────────────────────────────────────────────────────────────────────────────────────────


def read_slot_copy(copy: bytes, root_key: bytes) -> tuple[int, bytes]:
    """(generation, store key) of one copy in ``keys.slots``."""
    if copy[:8] != b"ehrslot1" or keyed("slot-check", copy[:96]) != copy[96:128] or copy[128:].strip(b"\0"):
        raise ValueError("no key slot")
    store_key = unseal(derive("slot", root_key, (copy[16:48],)), copy[48:96], copy[8:16])
    return int.from_bytes(copy[8:16], "big"), store_key


def read_slots(slots: bytes, root_key: bytes) -> dict[int, bytes]:
    """Store keys by generation; each slot is four equal copies."""
    if len(slots) != 8192:
        raise ValueError("not two slots")
    found = {}
    for slot in (slots[:4096], slots[4096:]):
        if slot.strip(b"\0"):
            if slot != slot[:1024] * 4:
                raise ValueError("the copies differ")
            generation, store_key = read_slot_copy(slot[:1024], root_key)
            found[generation] = store_key
    return found


def read_entries(entries: bytes, store_key: bytes) -> tuple[int, int, dict[tuple[str, bytes], bytes]]:
    """(generation, applied erasure height, values by kind and id) of ``keys.entries``."""
    if entries[:8] != b"ehrkeys1":
        raise ValueError("no entries file")
    generation, applied = int.from_bytes(entries[8:16], "big"), int.from_bytes(entries[16:24], "big")
    unseal(derive("entries-header", store_key, (entries[24:56],)), entries[56:72], entries[:56])
    found: dict[tuple[str, bytes], bytes] = {}
    offset, number = 72, 0
    while offset < len(entries):
        length, salt, check = entries[offset : offset + 4], entries[offset + 4 :][:32], entries[offset + 36 :][:12]
        if keyed("entry-check", length + salt)[:12] != check:
            raise ValueError(f"no record at {offset}")
        end = offset + 48 + int.from_bytes(length, "big")
        aad = encode((generation, number))
        rows = decode(unseal(derive("entry", store_key, (salt,)), entries[offset + 48 : end], aad))
        assert isinstance(rows, tuple)
        found |= {(kind, id_): value for kind, id_, value in rows}
        offset, number = end, number + 1
    return generation, applied, found


# ── checkpoint file ─────────────────────────────────────────────────────────────────────────────────────────────


def write_checkpoint_slot(sequence: int, note: bytes) -> bytes:
    """One slot of the checkpoint file."""
    used = b"ehrcheck" + sequence.to_bytes(8, "big") + len(note).to_bytes(2, "big") + note
    return (used + keyed("checkpoint-check", used)).ljust(4096, b"\0")


def read_checkpoint(data: bytes) -> bytes | None:
    """The newest note of a checkpoint file."""
    whole = []
    for slot in (data[:4096], data[4096:]):
        sequence, length = int.from_bytes(slot[8:16], "big"), int.from_bytes(slot[16:18], "big")
        note = slot[18 : 18 + length]
        if write_checkpoint_slot(sequence, note) == slot:
            whole.append((sequence, note))
    return max(whole)[1] or None
