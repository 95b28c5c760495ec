"""Sealing and opening: who may open, what is refused and by which code."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest
from ehrfast import _core
from ehrfast.errors import CorruptionError, DeniedError, EhrfastError, InvalidInputError, VerificationError
from numpy.typing import NDArray

ORIGIN = "main-" + "0" * 32
ROOT, SUBJECT, CUSTODIAN, EPOCH, RECORD = bytes(32), b"s" * 16, b"c" * 16, b"e" * 16, b"r" * 16
CONTENT = b'{"resourceType":"Flag","id":"marked-content"}'


def class_key(class_: str = "clinical", *, root: bytes = ROOT, epoch: bytes = EPOCH) -> _core.ClassKey:
    return _core.ClassKey.derive(root, SUBJECT, CUSTODIAN, class_, epoch)


def public_half(key: _core.ClassKey) -> _core.ClassPublicKey:
    return _core.ClassPublicKey(key.subject, key.custodian, key.class_, key.epoch, key.public_key)


def spans(*ends: int) -> NDArray[np.uint64]:
    return np.array([[0, end] for end in ends], dtype=np.uint64).reshape(-1, 2)


def seal(*keys: _core.ClassKey | _core.ClassPublicKey, content: bytes = CONTENT, version: int = 1) -> _core.SealedPack:
    return _core.seal_records(ORIGIN, content, spans(len(content)), [(RECORD, version, "clinical", keys)])


def open_first(pack: _core.SealedPack, key: _core.ClassKey, **changed: Any) -> tuple[bytes, bytes]:
    place: dict[str, Any] = {"origin": ORIGIN, "record_id": RECORD, "version": 1, "class_": "clinical"}
    place |= {"commitment": pack.commitments[0], **changed}
    item, wraps = place.pop("item", pack.item(0)), place.pop("wraps", pack.wraps(0))
    return _core.open_record(item, wraps, key, **place)


def test_whoever_it_is_wrapped_for_opens_it() -> None:
    by_class, by_public = class_key(), class_key(epoch=b"f" * 16)
    pack = seal(by_class, public_half(by_public))
    for key in (by_class, by_public):
        content, opening_key = open_first(pack, key)
        assert content == CONTENT
        _core.verify_opening(content, opening_key, pack.commitments[0])
    kids = [(key.subject, key.custodian, key.class_, key.epoch) for key in (by_class, by_public)]
    assert sorted(_core.wrap_kids(pack.wraps(0))) == kids


def test_whoever_it_is_not_wrapped_for_does_not() -> None:
    pack = seal(class_key())
    with pytest.raises(DeniedError) as caught:
        open_first(pack, class_key(epoch=b"f" * 16))
    assert caught.value.code == "envelope.no_wrap"


@pytest.mark.parametrize("public", [False, True])
def test_a_key_of_the_same_name_but_another_root_opens_nothing(public: bool) -> None:
    key, other = class_key(), class_key(root=b"x" * 32)
    with pytest.raises(CorruptionError) as caught:
        open_first(seal(public_half(key) if public else key), other)
    assert caught.value.code == "envelope.cannot_open"


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize(
    "changed",
    [{"origin": "main-" + "1" * 32}, {"record_id": b"q" * 16}, {"version": 2}, {"class_": "audit"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_record_does_not_pass_for_another(public: bool, changed: dict[str, Any]) -> None:
    key = class_key()
    with pytest.raises(CorruptionError) as caught:
        open_first(seal(public_half(key) if public else key), key, **changed)
    assert caught.value.code == "envelope.cannot_open"


def test_another_commitment_or_another_key_in_the_header_is_refused() -> None:
    key = class_key()
    one, two = seal(key), seal(key)
    with pytest.raises(CorruptionError) as caught:
        open_first(one, key, commitment=two.commitments[0])
    assert caught.value.code == "envelope.commitment_mismatch"
    with pytest.raises(CorruptionError) as caught:
        open_first(one, key, wraps=two.wraps(0))
    assert caught.value.code == "envelope.commitment_mismatch"
    assert open_first(one, key, commitment=None)[0] == CONTENT


def test_disclosed_content_is_checked() -> None:
    key = class_key()
    pack = seal(key)
    content, opening_key = open_first(pack, key)
    for wrong in ((content + b" ", opening_key), (content, bytes(32)), (b"", opening_key)):
        with pytest.raises(VerificationError) as caught:
            _core.verify_opening(*wrong, pack.commitments[0])
        assert caught.value.code == "envelope.commitment_mismatch"


def test_nothing_repeats_between_two_seals_of_the_same_content() -> None:
    key = class_key()
    content = bytes(64)
    packs = [seal(key, content=content) for _ in range(50)]
    items = [pack.item(0) for pack in packs]
    # Everything behind the fixed header differs: key commitment, key stream (the content is zero), tag.
    for part in (slice(27, 59), slice(62, 126), slice(126, 142)):
        assert len({item[part] for item in items}) == 50
    assert len({pack.commitments[0] for pack in packs}) == 50
    assert len({pack.wraps(0) for pack in packs}) == 50
    assert len({pack.root for pack in packs}) == 50


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 33, 700])
def test_batches_keep_order_at_every_size(count: int) -> None:
    key = class_key()
    data = os.urandom(64 * count)
    ranges = np.array([[64 * i, 64 * i + i % 65] for i in range(count)], dtype=np.uint64).reshape(-1, 2)
    ids = [i.to_bytes(16) for i in range(count)]
    pack = _core.seal_records(ORIGIN, data, ranges, [(ids[i], i, "clinical", [key]) for i in range(count)])
    assert len(pack) == len(pack.commitments) == count
    openings = [(pack.item(i), pack.wraps(i), key, ids[i], i, "clinical", pack.commitments[i]) for i in range(count)]
    opened = _core.open_records(openings, origin=ORIGIN)
    assert [content for content, _ in opened] == [data[start:end] for start, end in ranges.tolist()]
    assert pack.size == sum(len(pack.item(i)) + len(pack.wraps(i)) for i in range(count))
    again = _core.SealedPack.from_items([pack.item(i) for i in range(count)], [pack.wraps(i) for i in range(count)])
    assert (again.root, again.wraps_root, again.commitments) == (pack.root, pack.wraps_root, [])


def test_a_batch_says_which_is_refused_and_gives_nothing() -> None:
    key = class_key()
    pack = seal(key)
    good = (pack.item(0), pack.wraps(0), key, RECORD, 1, "clinical", pack.commitments[0])
    with pytest.raises(CorruptionError) as caught:
        _core.open_records([good, good, (*good[:4], 2, *good[5:])], origin=ORIGIN)
    assert (caught.value.code, caught.value.details["position"]) == ("envelope.cannot_open", 2)
    with pytest.raises(CorruptionError) as caught:
        _core.open_records([good, (*good[:6], bytes(32)), good], origin=ORIGIN)
    assert (caught.value.code, caught.value.details["position"]) == ("envelope.commitment_mismatch", 1)
    with pytest.raises(DeniedError) as denied:
        _core.open_records([(*good[:2], class_key("audit"), *good[3:])], origin=ORIGIN)
    assert (denied.value.code, denied.value.details["position"]) == ("envelope.no_wrap", 0)


def test_arrays_are_lent_like_bytes() -> None:
    key = class_key()
    array = np.frombuffer(CONTENT, dtype=np.uint8)
    pack = _core.seal_records(ORIGIN, array, spans(len(CONTENT)), [(RECORD, 1, "clinical", [key])])
    item, wraps = (np.frombuffer(part, dtype=np.uint8) for part in (pack.item(0), pack.wraps(0)))
    assert open_first(pack, key, item=item, wraps=wraps)[0] == CONTENT


KEY = class_key()


@pytest.mark.parametrize(
    ("ranges", "drafts", "code"),
    [
        (spans(1, 1), [(RECORD, 1, "clinical", [KEY])], "envelope.counts_differ"),
        (spans(99), [(RECORD, 1, "clinical", [KEY])], "envelope.span_out_of_range"),
        (np.array([[2, 1]], dtype=np.uint64), [(RECORD, 1, "clinical", [KEY])], "envelope.span_out_of_range"),
        (np.array([[0, 1, 2]], dtype=np.uint64), [(RECORD, 1, "clinical", [KEY])], "envelope.spans_shape"),
        (np.array([[0, 1, 0, 2]], dtype=np.uint64), [(RECORD, 1, "clinical", [KEY])], "envelope.spans_shape"),
        (spans(1), [(RECORD, 1, "clinical", [])], "envelope.recipient_count"),
        (spans(1), [(RECORD, 1, "clinical", [KEY] * 257)], "envelope.recipient_count"),
        (spans(1), [(RECORD, 1, "clinical", [KEY, public_half(KEY)])], "envelope.duplicate_recipient"),
        (spans(1), [(RECORD, 1, "audit", [KEY])], "envelope.wrong_class"),
        (spans(1, 1), [(RECORD, 1, "clinical", [KEY]), (RECORD, 2, "clinical", [KEY])], "envelope.duplicate_record"),
        (spans(1), [(b"short", 1, "clinical", [KEY])], "envelope.record_id_length"),
    ],
)
def test_a_batch_with_a_wrong_draft_seals_nothing(ranges: NDArray[np.uint64], drafts: list[Any], code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _core.seal_records(ORIGIN, CONTENT, ranges, drafts)
    assert caught.value.code == code


@pytest.mark.parametrize("origin", ["", "x" * 51, "e\u0301"])
def test_an_origin_outside_its_rule_is_refused(origin: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _core.seal_records(origin, CONTENT, spans(1), [(RECORD, 1, "clinical", [KEY])])
    assert caught.value.code == "envelope.origin"


@pytest.mark.parametrize("class_", ["", "a b", "é", "x" * 65, "a/b"])
def test_a_class_name_outside_its_rule_is_refused(class_: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        class_key(class_)
    assert caught.value.code == "envelope.class_name"


def test_content_above_16_mebibytes_is_refused() -> None:
    size = 16 * 2**20
    data = np.zeros(size + 1, dtype=np.uint8)
    pack = _core.seal_records(ORIGIN, data, spans(size), [(RECORD, 1, "clinical", [KEY])])
    assert len(open_first(pack, KEY)[0]) == size
    with pytest.raises(InvalidInputError) as caught:
        _core.seal_records(ORIGIN, data, spans(size + 1), [(RECORD, 1, "clinical", [KEY])])
    assert caught.value.code == "envelope.too_large"


@pytest.mark.parametrize("low_order", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_public_key_of_small_order_is_refused(low_order: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _core.ClassPublicKey(SUBJECT, CUSTODIAN, "clinical", EPOCH, low_order)
    assert caught.value.code == "envelope.public_key"


def test_ids_and_keys_have_their_lengths() -> None:
    for arguments in (
        (b"", SUBJECT, CUSTODIAN, "clinical", EPOCH),
        (ROOT, b"", CUSTODIAN, "clinical", EPOCH),
        (ROOT, SUBJECT, b"", "clinical", EPOCH),
        (ROOT, SUBJECT, CUSTODIAN, "clinical", b""),
    ):
        with pytest.raises(InvalidInputError):
            _core.ClassKey.derive(*arguments)


def test_parts_from_elsewhere_must_be_whole() -> None:
    pack = seal(KEY)
    for items, wraps, code in (
        ([pack.item(0)], [], "envelope.counts_differ"),
        ([pack.item(0)[:-1]], [pack.wraps(0)], "envelope.malformed"),
        ([pack.item(0)], [pack.wraps(0) + b"\x00"], "envelope.malformed"),
        ([pack.item(0)], [b"\x80"], "envelope.malformed"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            _core.SealedPack.from_items(items, wraps)
        assert caught.value.code == code
    with pytest.raises(IndexError):
        pack.item(1)
    with pytest.raises(IndexError):
        pack.wraps(1)


def test_nothing_secret_is_shown_and_keys_cannot_be_pickled() -> None:
    root = bytes(range(32))
    key = class_key(root=root)
    assert root.hex() not in repr(key)
    assert "clinical" in repr(key)
    assert repr(seal(key)) == f"<SealedPack records=1 bytes={seal(key).size}>"
    for secret in (key, public_half(key), seal(key)):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
    with pytest.raises(EhrfastError) as caught:
        open_first(seal(key), class_key(root=b"x" * 32))
    assert "marked-content" not in str(caught.value)
