"""Transactions from Python: the bytes of the reference, and a verdict for each item of a batch."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import blake3
import numpy as np
import pytest
from ehrfast._core import (
    SigningKey,
    Transaction,
    admit_decoded,
    admit_transactions,
    cbor_encode,
    decode_transaction,
    sign_transaction,
    sign_transactions,
)
from ehrfast.errors import InvalidInputError
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import transaction as reference

PINNED = tomllib.loads((Path(__file__).parents[1] / "vectors/formats.toml").read_text())["transaction"]
KEY = SigningKey.from_seed(b"\x01" * 32)
CHAIN = "main-" + "0" * 32


def sign(
    args: Mapping[int, object] = MappingProxyType({}), *, chain_id: str = CHAIN, lane: int = 2, expires: int = 1
) -> Transaction:
    return sign_transaction(KEY, chain_id, "records", "put", args, lane=lane, expires=expires)


def sign_fields(fields: reference.Fields) -> Transaction:
    return sign_transaction(
        SigningKey.from_seed(fields.seed),
        fields.chain_id,
        fields.contract,
        fields.method,
        fields.args,
        lane=fields.lane,
        expires=fields.expires,
        salt=fields.salt,
        attachments=fields.attachments,
    )


def test_generated_encodings_are_pinned() -> None:
    encodings, ids = blake3.blake3(), blake3.blake3()
    for number in range(PINNED["count"]):
        fields = reference.generated(number)
        transaction = sign_fields(fields)
        encodings.update(len(transaction).to_bytes(4, "big") + transaction.received)
        ids.update(transaction.id)
        if number < 32:  # the twin is slow
            assert transaction.received == fields.received()
            assert transaction.id == fields.id()
            assert transaction.received_digest == fields.received_digest()
    assert encodings.hexdigest() == PINNED["encodings"]
    assert ids.hexdigest() == PINNED["ids"]


def test_every_field_is_read_back() -> None:
    for number in range(64):
        fields = reference.generated(number)
        transaction = decode_transaction(sign_fields(fields).received)
        assert transaction.sender == fields.public_key()
        assert transaction.chain_id == fields.chain_id
        assert (transaction.contract, transaction.method) == (fields.contract, fields.method)
        assert cbor_encode(transaction.args) == cbor_encode(fields.args)
        assert (transaction.lane, transaction.expires) == (fields.lane, fields.expires)
        assert (transaction.salt, transaction.attachments) == (fields.salt, fields.attachments)
        assert transaction == sign_fields(fields)
        assert hash(transaction) == hash(sign_fields(fields))


def test_a_salt_is_drawn_when_none_is_given() -> None:
    first, second = sign(), sign()
    assert first.salt != second.salt
    assert first.id != second.id
    assert first != second


def test_arguments_are_immutable_and_shown_to_nobody() -> None:
    transaction = sign({1: ["Maria Musterfrau"]})
    assert transaction.args == {1: ("Maria Musterfrau",)}
    assert repr(transaction) == f"Transaction(id={transaction.id.hex()}, call=records.put)"
    with pytest.raises(TypeError):
        transaction.args[2] = 3  # type: ignore[index]
    with pytest.raises(AttributeError):
        transaction.lane = 0  # type: ignore[misc]


def test_each_item_of_a_batch_gets_its_own_verdict() -> None:
    good = [sign({1: number}) for number in range(200)]
    forged = bytearray(good[7].received)
    forged[-20] ^= 1
    other_chain = sign(chain_id="elsewhere")
    large = sign({1: bytes(70_000)})
    received = [transaction.received for transaction in good]
    received[7] = bytes(forged)
    received[63] = other_chain.received
    received[64] = b""
    received[65] = received[65] + b"\0"
    received[199] = large.received
    verdicts = admit_transactions(received, CHAIN)
    refused = {
        7: "signature.invalid",
        63: "transaction.wrong_chain",
        64: "transaction.malformed",
        65: "transaction.malformed",
        199: "transaction.too_large",
    }
    assert verdicts == [refused.get(number, transaction) for number, transaction in enumerate(good)]
    assert admit_transactions([large.received], CHAIN, max_bytes=len(large)) == [large]
    assert admit_transactions([], CHAIN) == []

    decoded = [good[0], decode_transaction(bytes(forged)), other_chain, large, good[1]]
    assert admit_decoded(decoded, CHAIN, 65536) == [
        None,
        "signature.invalid",
        "transaction.wrong_chain",
        "transaction.too_large",
        None,
    ]


def test_many_are_signed_in_order() -> None:
    signed = sign_transactions(KEY, CHAIN, "records", "put", [{1: n} for n in range(100)], lane=1, expires=5)
    assert [dict(transaction.args) for transaction in signed] == [{1: n} for n in range(100)]
    assert len({transaction.salt for transaction in signed}) == 100
    assert admit_transactions([transaction.received for transaction in signed], CHAIN) == signed
    with pytest.raises(InvalidInputError, match=r"cbor\.unsupported"):
        sign_transactions(KEY, CHAIN, "records", "put", [{1: 1}, {1: 1.5}], lane=1, expires=5)
    with pytest.raises(InvalidInputError, match=r"transaction\.malformed"):
        sign_transactions(KEY, CHAIN, "records", "put", [{1: 1}], lane=3, expires=5)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"chain_id": "Main"}, 1),
        ({"lane": 3}, 5),
        ({"lane": -1}, 5),
        ({"lane": 2**70}, 5),
        ({"expires": -1}, 6),
        ({"expires": 2**63}, 6),
    ],
)
def test_a_field_out_of_its_range_is_named(wrong: dict[str, object], field: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        sign(**wrong)  # type: ignore[arg-type]
    assert caught.value.code == "transaction.malformed"
    assert caught.value.details == {"field": field}


def test_lengths_of_salt_and_roots_are_checked() -> None:
    with pytest.raises(InvalidInputError, match=r"transaction\.salt_length"):
        sign_transaction(KEY, CHAIN, "a", "b", {}, lane=0, expires=0, salt=bytes(15))
    with pytest.raises(InvalidInputError, match=r"transaction\.attachment_length"):
        sign_transaction(KEY, CHAIN, "a", "b", {}, lane=0, expires=0, attachments=[(bytes(32), bytes(31))])


def test_refusals_say_where() -> None:
    received = sign().received
    with pytest.raises(InvalidInputError) as caught:
        decode_transaction(received[:-1])
    assert caught.value.code == "transaction.malformed"
    assert caught.value.details["reason"] == "cbor.truncated"
    with pytest.raises(InvalidInputError) as caught:
        decode_transaction(bytes(2**20))
    assert caught.value.code == "transaction.too_large"
    array = np.frombuffer(received, dtype=np.uint8)
    assert decode_transaction(array).received_digest == hashlib.sha256(received).digest()


@given(st.data())
def test_a_changed_transaction_is_never_the_same_one(data: st.DataObject) -> None:
    original = sign({1: (1, b"two", "drei", None, True, {-1: ()})})
    changed = bytearray(original.received)
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= data.draw(st.integers(1, 255))
    (verdict,) = admit_transactions([bytes(changed)], CHAIN)
    assert isinstance(verdict, str)
    try:
        read = decode_transaction(bytes(changed))
    except InvalidInputError:
        return
    assert (read.id == original.id) == (position >= len(changed) - 64)
