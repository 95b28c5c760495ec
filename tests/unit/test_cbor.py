"""Which Python values have an encoding, and what decoding gives back."""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
from ehrfast._core import cbor_decode, cbor_encode
from ehrfast.errors import InvalidInputError


class Lane(enum.IntEnum):
    URGENT = 1


class Purpose(enum.StrEnum):
    TREAT = "TREAT"


class Row(NamedTuple):
    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    number: int


class Doubled(Mapping[int, int]):
    """A mapping that gives one key twice."""

    def __getitem__(self, key: int) -> int:
        return key

    def __iter__(self) -> Iterator[int]:
        return iter((1, 1))

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("value", "encoded", "decoded"),
    [
        (True, "f5", True),
        (1, "01", 1),
        (Lane.URGENT, "01", 1),
        (Purpose.TREAT, "655452454154", "TREAT"),
        (Row(1, "a"), "82016161", (1, "a")),
        ([1, [2]], "82018102", (1, (2,))),
        ((), "80", ()),
        ({}, "a0", {}),
        ({-1: 1, 24: 2, 0: 3}, "a3000318180220" + "01", {0: 3, 24: 2, -1: 1}),
        (MappingProxyType({2: 1, 1: 2}), "a201020201", {1: 2, 2: 1}),
        (OrderedDict({2: 1, 1: 2}), "a201020201", {1: 2, 2: 1}),
        (UserDict({2: 1}), "a10201", {2: 1}),
        ({2**64 - 1: None, -(2**63): None}, "a21bfffffffffffffffff6" + "3b7ffffffffffffffff6",
         {2**64 - 1: None, -(2**63): None}),
    ],
)  # fmt: skip
def test_values_and_their_encodings(value: object, encoded: str, decoded: object) -> None:
    assert cbor_encode(value).hex() == encoded
    given_back = cbor_decode(bytes.fromhex(encoded))
    assert given_back == decoded
    assert type(given_back) is (MappingProxyType if isinstance(decoded, dict) else type(decoded))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (1.0, "cbor.unsupported"),
        (float("nan"), "cbor.unsupported"),
        (Decimal(1), "cbor.unsupported"),
        (np.int64(1), "cbor.unsupported"),
        ({1}, "cbor.unsupported"),
        (frozenset({1}), "cbor.unsupported"),
        (bytearray(b"a"), "cbor.unsupported"),
        (memoryview(b"a"), "cbor.unsupported"),
        (Arguments(1), "cbor.unsupported"),
        (object(), "cbor.unsupported"),
        (range(3), "cbor.unsupported"),
        ({"a": 1}, "cbor.unsupported"),
        ({True: 1}, "cbor.unsupported"),
        ({None: 1}, "cbor.unsupported"),
        ({1.0: 1}, "cbor.unsupported"),
        ((1, {1: {2.5}}), "cbor.unsupported"),
        (2**64, "cbor.out_of_range"),
        (-(2**63) - 1, "cbor.out_of_range"),
        ({2**64: 1}, "cbor.out_of_range"),
        ("e\u0301", "cbor.not_nfc"),
        ("\ud800", "cbor.not_utf8"),
        (((((((((((),),),),),),),),),), "cbor.too_deep"),
        (Doubled(), "cbor.key_order"),
    ],
)
def test_values_without_an_encoding(value: object, code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        cbor_encode(value)
    assert caught.value.code == code


def test_a_list_inside_itself_is_too_deep() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InvalidInputError, match=r"cbor\.too_deep"):
        cbor_encode(loop)


def test_an_error_raised_by_a_mapping_goes_through() -> None:
    class Broken(UserDict[int, int]):
        def __iter__(self) -> Iterator[int]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cbor_encode(Broken({1: 1}))


def test_decoded_values_cannot_be_changed() -> None:
    decoded = cbor_decode(cbor_encode({1: [1, {2: 3}]}))
    assert isinstance(decoded, Mapping)
    with pytest.raises(TypeError):
        decoded[1] = 2  # type: ignore[index]
    assert isinstance(decoded[1], tuple)
    assert isinstance(decoded[1][1], MappingProxyType)


def test_buffers_of_either_kind_are_read() -> None:
    encoded = cbor_encode((1, b"abc"))
    array = np.frombuffer(encoded, dtype=np.uint8)
    assert cbor_decode(array) == cbor_decode(array.copy()) == (1, b"abc")
    with pytest.raises(InvalidInputError, match=r"input\."):
        cbor_decode(bytearray(encoded))  # type: ignore[arg-type]


def test_the_cap_is_checked_before_anything_is_parsed() -> None:
    with pytest.raises(InvalidInputError) as caught:
        cbor_decode(b"\xff" * 11, max_bytes=10)
    assert caught.value.code == "cbor.too_large"
    assert caught.value.details == {"size": 11, "limit": 10}
    assert cbor_decode(cbor_encode(bytes(2**20 - 5))) == bytes(2**20 - 5)
    with pytest.raises(InvalidInputError, match=r"cbor\.too_large"):
        cbor_decode(cbor_encode(bytes(2**20)))


def test_errors_name_the_place_and_never_the_content() -> None:
    with pytest.raises(InvalidInputError) as caught:
        cbor_encode(("Maria Musterfrau", 1.5))
    assert caught.value.details == {"offset": 18}
    assert "Maria" not in f"{caught.value!r}{caught.value}"
