"""The envelope against its twin, both ways, and against every altered byte."""

from __future__ import annotations

from collections.abc import Iterator

import blake3
import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from ehrfast import _core
from ehrfast.errors import CorruptionError, DeniedError, EhrfastError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import envelope as twin

ids = st.binary(min_size=16, max_size=16)
classes = st.text("abcXYZ019-_.", min_size=1, max_size=64)
places = st.builds(twin.Place, st.text("abc019-", min_size=1, max_size=50), ids, st.integers(0, 2**64 - 1), classes)
keys32 = st.binary(min_size=32, max_size=32)
contents = st.binary(max_size=5000)


def real(key: twin.TwinKey) -> _core.ClassKey:
    return _core.ClassKey.derive(key.root, key.subject, key.custodian, key.class_, key.epoch)


def open_real(
    place: twin.Place, item: bytes, wraps: bytes, key: twin.TwinKey, commitment: bytes | None
) -> tuple[bytes, bytes]:
    return _core.open_record(
        item,
        wraps,
        real(key),
        origin=place.origin,
        record_id=place.record_id,
        version=place.version,
        class_=place.class_,
        commitment=commitment,
    )


@given(keys32, ids, ids, classes, ids)
def test_class_keys_are_derived_alike(root: bytes, subject: bytes, custodian: bytes, class_: str, epoch: bytes) -> None:
    key = twin.TwinKey(root, subject, custodian, class_, epoch)
    assert (real(key).kid, real(key).public_key) == (key.kid, key.public_key)


@settings(deadline=None)
@given(places, contents, keys32, st.booleans())
def test_the_twin_opens_what_we_seal(place: twin.Place, content: bytes, root: bytes, public: bool) -> None:
    key = twin.TwinKey(root, bytes(16), bytes(16), place.class_, bytes(16))
    other = twin.TwinKey(root, b"o" * 16, bytes(16), place.class_, bytes(16))
    recipients: list[_core.ClassKey | _core.ClassPublicKey] = [
        _core.ClassPublicKey(key.subject, key.custodian, key.class_, key.epoch, key.public_key)
        if public
        else real(key),
        real(other),
    ]
    span = np.array([[0, len(content)]], dtype=np.uint64)
    pack = _core.seal_records(place.origin, content, span, [(place.record_id, place.version, place.class_, recipients)])
    for reader in (key, other):
        content_key = twin.unwrap(pack.wraps(0), reader, place)
        assert content_key is not None
        assert twin.open_item(place, pack.item(0), content_key) == content
        assert twin.commitment(twin.opening_key(content_key), content) == pack.commitments[0]
    assert pack.root == twin.root_of([pack.item(0)])
    assert pack.wraps_root == twin.root_of([pack.wraps(0)])


@settings(deadline=None)
@given(places, contents, keys32, keys32, keys32)
def test_we_open_what_the_twin_seals(
    place: twin.Place, content: bytes, root: bytes, content_key: bytes, ephemeral: bytes
) -> None:
    first = twin.TwinKey(root, b"1" * 16, bytes(16), place.class_, bytes(16))
    second = twin.TwinKey(root, b"2" * 16, bytes(16), place.class_, bytes(16))
    item = twin.seal_item(place, content, content_key)
    wraps = twin.join_wraps(
        [
            twin.wrap_class(first, content_key),
            twin.wrap_public(second.kid, second.public_key, place, content_key, ephemeral),
        ]
    )
    opening_key = twin.opening_key(content_key)
    for key in (first, second):
        opened = open_real(place, item, wraps, key, twin.commitment(opening_key, content))
        assert opened == (content, opening_key)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33])
def test_roots_are_the_twins(count: int) -> None:
    records = [twin.generated_record(number) for number in range(count)]
    items, wraps = [record.item for record in records], [record.wraps for record in records]
    pack = _core.SealedPack.from_items(items, wraps)
    assert (pack.root, pack.wraps_root) == (twin.root_of(items), twin.root_of(wraps))


def alterations(data: bytes) -> Iterator[bytes]:
    """Every byte in three other values, every length, and a byte too many."""
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            yield data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        yield data[:at]
    yield data + b"\x00"


RECORD = twin.generated_record(1)


@pytest.mark.parametrize("commitment", [RECORD.commitment, None], ids=["with state", "without state"])
def test_every_altered_byte_of_an_item_is_refused(commitment: bytes | None) -> None:
    for altered in alterations(RECORD.item):
        with pytest.raises(CorruptionError):
            open_real(RECORD.place, altered, RECORD.wraps, RECORD.key, commitment)


@pytest.mark.parametrize("wraps", [RECORD.wraps, RECORD.public_wraps], ids=["class", "public"])
def test_every_altered_byte_of_a_wrap_is_refused(wraps: bytes) -> None:
    assert open_real(RECORD.place, RECORD.item, wraps, RECORD.key, RECORD.commitment)[0] == RECORD.content
    for altered in alterations(wraps):
        # A wrap whose kid became another's is simply not for this key.
        with pytest.raises((CorruptionError, DeniedError)):
            open_real(RECORD.place, RECORD.item, altered, RECORD.key, RECORD.commitment)


def test_only_one_order_of_wraps_is_read_and_none_twice() -> None:
    one, two = (twin.wrap_class(twin.generated_key(number), bytes(32))[1] for number in (1, 2))
    assert len(_core.wrap_kids(cbor2.dumps([one, two]))) == 2
    for wrong in ([two, one], [one, one], []):
        with pytest.raises(EhrfastError) as caught:
            _core.wrap_kids(cbor2.dumps(wrong))
        assert caught.value.code == "envelope.malformed"


@given(st.binary(max_size=200))
def test_any_bytes_give_a_verdict(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        open_real(RECORD.place, data, RECORD.wraps, RECORD.key, None)
    with pytest.raises((CorruptionError, DeniedError)):
        open_real(RECORD.place, RECORD.item, data, RECORD.key, None)


@given(st.data())
def test_items_with_repeated_alterations_are_refused(data: st.DataObject) -> None:
    item = bytearray(RECORD.item)
    for _ in range(data.draw(st.integers(1, 4))):
        item[data.draw(st.integers(0, len(item) - 1))] = data.draw(st.integers(0, 255))
    if bytes(item) == RECORD.item:
        return
    with pytest.raises(CorruptionError):
        open_real(RECORD.place, bytes(item), RECORD.wraps, RECORD.key, RECORD.commitment)


def test_the_content_key_is_the_key_of_any_aes_gcm() -> None:
    """What README tells an outsider to do: AES-256-GCM with the unwrapped key, nonce zero, the Enc_structure as AAD."""
    key = twin.generated_key(9)
    span = np.array([[0, 4]], dtype=np.uint64)
    pack = _core.seal_records("main", b"text", span, [(bytes(16), 1, key.class_, [real(key)])])
    protected, _, ciphertext = cbor2.loads(pack.item(0)).value
    [[_, _, wrapped]] = cbor2.loads(pack.wraps(0))
    content_key = aes_key_unwrap(key.wrap_key, wrapped)
    external_aad = cbor2.dumps([1, "main", bytes(16), 1, key.class_])
    aad = cbor2.dumps(["Encrypt0", protected, external_aad])
    assert AESGCM(content_key).decrypt(bytes(12), ciphertext, aad) == b"text"
    assert (
        blake3.blake3(content_key + b"\x80", derive_key_context="ehrfast 2026-11 key-commitment v1").digest()
        == (cbor2.loads(protected)[-65537])
    )
