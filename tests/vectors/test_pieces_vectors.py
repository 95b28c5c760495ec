"""Our own pinned items in pieces, and the slow twin that makes and opens them, against the core."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from ehrfast._core import ClassKey, PieceOpener, PieceSealer
from ehrfast.errors import CorruptionError

from tests.reference import envelope
from tests.reference import pieces as twin

ROOT = Path(__file__).parents[2]
PINNED = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text())["pieces"]
STEP = twin.PIECE + twin.TAG


def core_key(sample: twin.Sample) -> ClassKey:
    key = sample.key
    return ClassKey.derive(key.root, key.subject, key.custodian, key.class_, key.epoch)


def place_of(sample: twin.Sample) -> dict[str, object]:
    place = sample.place
    return {"origin": place.origin, "record_id": place.record_id, "version": place.version, "class_": place.class_}


def opened_by_core(sample: twin.Sample, item: bytes, wraps: bytes, commitment: bytes) -> bytes:
    front = PieceOpener.front_bytes(item[:80])
    opener = PieceOpener(item[:front], wraps, core_key(sample), **place_of(sample))  # type: ignore[arg-type]
    assert opener.head == sample.head
    starts = range(front, max(len(item), front + 1), STEP)
    content = b"".join(opener.open(item[start : start + STEP], start + STEP >= len(item)) for start in starts)
    opener.finish(commitment)
    return content


def test_the_twin_gives_the_pinned_encodings() -> None:
    assert twin.pinned() == PINNED


@pytest.mark.parametrize(("number", "size"), list(enumerate(twin.SIZES)))
def test_each_opens_what_the_other_sealed(number: int, size: int) -> None:
    sample = twin.generated(number, size)
    assert opened_by_core(sample, sample.item, sample.wraps, sample.commitment) == sample.content
    sealer = PieceSealer(sample.head, **place_of(sample))  # type: ignore[arg-type]
    parts = [sealer.update(sample.content[start : start + 333_333]) for start in range(0, size, 333_333)]
    last, sealed = sealer.finish([core_key(sample)])
    item = b"".join((sealer.front, *parts, last))
    content_key = envelope.unwrap(sealed.wraps, sample.key, sample.place)
    assert content_key is not None
    assert twin.open_(sample.place, item, content_key) == (sample.head, sample.content)
    assert sealed.item_digest == envelope.keyed("pack-item", item)
    assert sealed.commitment == envelope.commitment(envelope.opening_key(content_key), sample.content)


def test_both_refuse_a_piece_at_another_place() -> None:
    sample = twin.generated(5, twin.SIZES[5])
    front = len(sample.item) - twin.SIZES[5] - 3 * twin.TAG
    pieces = [sample.item[start : start + STEP] for start in range(front, len(sample.item), STEP)]
    for order in ([1, 0, 2], [0, 2], [0, 1], [0, 0, 1, 2], [0, 1, 2, 2]):
        item = sample.item[:front] + b"".join(pieces[index] for index in order)
        with pytest.raises(CorruptionError):
            opened_by_core(sample, item, sample.wraps, sample.commitment)
        with pytest.raises(InvalidTag):
            twin.open_(sample.place, item, sample.content_key)
