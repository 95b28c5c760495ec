"""Content sealed in pieces, slow and readable: what rust/core/src/pieces.rs must agree with.

Built on other people's code only, like tests/reference/envelope.py. Source: docs/formats.md, "Records, packs, keys".
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import blake3
import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.reference import envelope
from tests.reference.envelope import KEY_COMMITMENT, ZERO_NONCE, Place, TwinKey, derive, keyed

PIECE = 1024 * 1024
TAG = 16
ALGORITHM, A256GCM_PIECES, HEAD_BYTES = 1, -65539, -65540


def cut(content: bytes) -> list[bytes]:
    """Whole pieces and one last one, which is empty only where the content is."""
    return [content[start : start + PIECE] for start in range(0, len(content), PIECE)] or [b""]


def associated(protected: bytes, place: Place) -> bytes:
    """What is authenticated with the head and with every piece."""
    return cbor2.dumps(["Pieces", protected, place.external_aad])


def seal(place: Place, head: bytes, content: bytes, content_key: bytes) -> bytes:
    """The item under a given content key; real ones are fresh."""
    commitment = derive("key-commitment", content_key, [])
    protected = cbor2.dumps({ALGORITHM: A256GCM_PIECES, KEY_COMMITMENT: commitment, HEAD_BYTES: len(head)})
    aad = associated(protected, place)

    def sealed(info: list[object], part: bytes) -> bytes:
        return AESGCM(derive("piece", content_key, info)).encrypt(ZERO_NONCE, part, aad)

    pieces = cut(content)
    last = len(pieces) - 1
    body = [sealed([index, index == last], piece) for index, piece in enumerate(pieces)]
    return cbor2.dumps(protected) + sealed([], head) + b"".join(body)


def open_(place: Place, item: bytes, content_key: bytes) -> tuple[bytes, bytes]:
    """(head, content); raises where anything differs."""
    reader = io.BytesIO(item)
    protected = cbor2.load(reader)
    header = cbor2.loads(protected)
    commitment = derive("key-commitment", content_key, [])
    assert header == {ALGORITHM: A256GCM_PIECES, KEY_COMMITMENT: commitment, HEAD_BYTES: header[HEAD_BYTES]}
    aad = associated(protected, place)

    def opened(info: list[object], part: bytes) -> bytes:
        return AESGCM(derive("piece", content_key, info)).decrypt(ZERO_NONCE, part, aad)

    head = opened([], reader.read(header[HEAD_BYTES] + TAG))
    body = reader.read()
    pieces = [body[start : start + PIECE + TAG] for start in range(0, len(body), PIECE + TAG)]
    last = len(pieces) - 1
    return head, b"".join(opened([index, index == last], piece) for index, piece in enumerate(pieces))


# ── generated encodings, pinned in tests/vectors/formats.toml ──

SIZES = (0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 17)


@dataclass(frozen=True, slots=True)
class Sample:
    """An item of the pinned ones."""

    key: TwinKey
    place: Place
    head: bytes
    content: bytes
    content_key: bytes

    @property
    def item(self) -> bytes:
        """Sealed."""
        return seal(self.place, self.head, self.content, self.content_key)

    @property
    def wraps(self) -> bytes:
        """For its key alone."""
        return envelope.join_wraps([envelope.wrap_class(self.key, self.content_key)])

    @property
    def commitment(self) -> bytes:
        """In state."""
        return envelope.commitment(envelope.opening_key(self.content_key), self.content)


def generated(number: int, size: int) -> Sample:
    """Item ``number`` of the pinned ones, of so much content."""
    key, byte = envelope.generated_key(number), bytes([number])
    return Sample(
        key=key,
        place=Place("main-" + "0" * 32, byte * 16, number + 1, key.class_),
        head=b'{"resourceType":"Binary","id":"%d"}' % number,
        content=blake3.blake3(b"content" + byte).digest(size) if size else b"",
        content_key=blake3.blake3(b"content key" + byte).digest(),
    )


def pinned() -> dict[str, str]:
    """What section ``[pieces]`` of formats.toml holds."""
    samples = [generated(number, size) for number, size in enumerate(SIZES)]
    items = [sample.item for sample in samples]

    def over(parts: Sequence[bytes]) -> str:
        return blake3.blake3(b"".join(len(part).to_bytes(4) + part for part in parts)).hexdigest()

    return {
        "items": over(items),
        "item_digests": over([keyed("pack-item", item) for item in items]),
        "commitments": over([sample.commitment for sample in samples]),
        "example_item": items[1].hex(),
        "example_wraps": samples[1].wraps.hex(),
    }
