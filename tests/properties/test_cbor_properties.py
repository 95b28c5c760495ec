"""The codec against cbor2 and the slow twin: same bytes, same values, same refusals."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import cbor2
import pytest
from ehrfast._core import cbor_decode, cbor_encode
from ehrfast.errors import InvalidInputError
from hypothesis import example, given
from hypothesis import strategies as st

from tests.reference import cbor as reference

integers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from(
    [edge + step for edge in (24, 2**8, 2**16, 2**32) for step in (-1, 0)]
    + [-1 - edge - step for edge in (23, 255, 65535, 2**32 - 1) for step in (0, 1)]
)
texts = st.text(st.characters(codec="utf-8")).map(lambda text: unicodedata.normalize("NFC", text))
scalars = integers | texts | st.binary() | st.booleans() | st.none()


def containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=30).map(tuple) | st.dictionaries(integers, inner, max_size=6)


shallow = st.recursive(scalars, containers, max_leaves=7)


def plain(value: object) -> object:
    """Without the proxies around maps, which equal no dict inside a tuple of another type."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


@given(shallow)
def test_encodes_as_the_twin_and_cbor2_do(value: object) -> None:
    encoded = cbor_encode(value)
    assert encoded == reference.encode(value)
    assert plain(cbor_decode(encoded)) == value
    assert cbor_encode(cbor_decode(encoded)) == encoded
    assert cbor2.loads(encoded) == cbor2.loads(cbor2.dumps(value, canonical=True))


@given(scalars | st.lists(scalars).map(tuple))
def test_writes_what_cbor2_writes(value: object) -> None:
    """Maps aside: the canonical mode of cbor2 orders keys by length, as RFC 7049 did."""
    assert cbor_encode(value) == cbor2.dumps(value, canonical=True)


def check_agreement(data: bytes) -> None:
    try:
        expected: object = reference.decode(data)
    except (reference.Refused, UnicodeDecodeError, RecursionError):
        with pytest.raises(InvalidInputError, match=r"^cbor\."):
            cbor_decode(data)
    else:
        assert plain(cbor_decode(data)) == expected
        assert cbor_encode(cbor_decode(data)) == data


@given(st.binary(max_size=40))
@example(b"\xa2\x20\x00\x00\x00")
@example(b"\xa1\xf4\x00")
@example(b"\x63e\xcc\x81")
@example(b"\x81" * 8 + b"\x80")
@example(b"\x9b" + b"\xff" * 8)
@example(b"\xbb" + b"\xff" * 8)
def test_takes_and_refuses_what_the_twin_does(data: bytes) -> None:
    check_agreement(data)


@given(shallow, st.data())
def test_changed_encodings_are_judged_as_by_the_twin(value: object, data: st.DataObject) -> None:
    encoded = bytearray(cbor_encode(value))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    check_agreement(bytes(encoded))
    check_agreement(bytes(encoded) + b"\x00")


@given(shallow)
def test_every_cut_is_refused(value: object) -> None:
    encoded = cbor_encode(value)
    for length in range(min(len(encoded), 300)):
        with pytest.raises(InvalidInputError):
            cbor_decode(encoded[:length])
