"""Signatures against the `cryptography` package and the slow twin, alone and together."""

from __future__ import annotations

import copy
import hashlib
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from ehrfast import _core
from ehrfast.errors import InvalidInputError, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import ed25519

seeds = st.binary(min_size=32, max_size=32)
messages = st.binary(max_size=500)


def small_order_points() -> list[ed25519.Point]:
    """All eight: the multiples of a point of order 8."""
    for y in range(2, 100):
        point = ed25519.decompress(y.to_bytes(32, "little"))
        if point is not None:
            torsion = ed25519.multiply(ed25519.ORDER, point)
            if ed25519.multiply(4, torsion) != (0, 1):
                return [ed25519.multiply(factor, torsion) for factor in range(8)]
    raise AssertionError


SMALL_ORDER = small_order_points()


@given(seeds, messages)
def test_keys_and_signatures_are_those_of_cryptography(seed: bytes, message: bytes) -> None:
    ours, theirs = _core.SigningKey.from_seed(seed), Ed25519PrivateKey.from_private_bytes(seed)
    assert ours.public_key == theirs.public_key().public_bytes_raw()
    assert ours.sign(message) == theirs.sign(message)
    assert ours.sign(np.frombuffer(message, dtype=np.uint8)) == theirs.sign(message)
    assert ours.seed() == seed
    _core.verify_signature(ours.public_key, message, theirs.sign(message))
    _core.check_public_key(ours.public_key)


@given(seeds, messages, st.integers(0, 511))
def test_one_flipped_bit_is_refused(seed: bytes, message: bytes, bit: int) -> None:
    key = _core.SigningKey.from_seed(seed)
    signature = bytearray(key.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(VerificationError) as caught:
        _core.verify_signature(key.public_key, message, bytes(signature))
    assert caught.value.code == "signature.invalid"


def test_generated_keys_differ_and_work_elsewhere() -> None:
    first, second = _core.SigningKey.generate(), _core.SigningKey.generate()
    assert first.public_key != second.public_key
    Ed25519PublicKey.from_public_bytes(first.public_key).verify(first.sign(b"m"), b"m")


@st.composite
def items(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, bool]:
    """An item and whether it holds: signed by few keys, maybe with torsion in A and R, maybe spoilt."""
    secret = draw(st.integers(1, 5))
    nonce = draw(st.integers(1, ed25519.ORDER - 1))
    message = draw(st.binary(max_size=80))
    of_key, of_r = (SMALL_ORDER[draw(st.integers(0, 7))] for _ in range(2))
    public_key = ed25519.compress(ed25519.add(ed25519.multiply(secret, ed25519.BASE), of_key))
    r = ed25519.compress(ed25519.add(ed25519.multiply(nonce, ed25519.BASE), of_r))
    k = int.from_bytes(hashlib.sha512(r + public_key + message).digest(), "little")
    s = (nonce + k * secret) % ed25519.ORDER
    fault = draw(st.sampled_from(["none"] * 8 + ["s", "message", "order", "key", "r"]))
    if fault == "s":
        s ^= 1
    if fault == "message":
        message += b"!"
    if fault == "order":
        s += ed25519.ORDER
    if fault == "key":
        public_key = b"\x02" + bytes(31)
    if fault == "r":
        r = b"\x02" + bytes(31)
    return public_key, message, r + s.to_bytes(32, "little"), fault == "none"


@settings(deadline=None, max_examples=40)
@given(st.lists(items(), max_size=20))
def test_a_verdict_for_each_item(drawn: list[tuple[bytes, bytes, bytes, bool]]) -> None:
    keys = b"".join(item[0] for item in drawn)
    texts = b"".join(item[1] for item in drawn)
    signatures = b"".join(item[2] for item in drawn)
    offsets = np.cumsum([0, *(len(item[1]) for item in drawn)]).astype(np.uint64)
    verdicts = _core.verify_signatures(keys, texts, offsets, signatures)
    assert verdicts.dtype == np.bool_
    assert list(verdicts) == [item[3] for item in drawn]
    for public_key, message, signature, holds in drawn[:3]:
        assert ed25519.verify(public_key, message, signature) == holds
    as_arrays = _core.verify_signatures(
        np.frombuffer(keys, dtype=np.uint8).reshape(-1, 32),
        np.frombuffer(texts, dtype=np.uint8),
        offsets,
        np.frombuffer(signatures, dtype=np.uint8).reshape(-1, 64),
    )
    assert np.array_equal(as_arrays, verdicts)


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 127, 128, 129, 600])
def test_bad_items_are_found_in_batches_of_any_size(count: int) -> None:
    keys = [_core.SigningKey.from_seed(bytes([number]) * 32) for number in range(9)]
    public_keys = b"".join(keys[number % 9].public_key for number in range(count))
    texts = b"".join(number.to_bytes(2, "big") for number in range(count))
    signed = [keys[number % 9].sign(number.to_bytes(2, "big")) for number in range(count)]
    offsets = np.arange(0, 2 * count + 1, 2, dtype=np.uint64)
    for bad in (set[int](), {0}, {count - 1}, {count // 2, count // 3}, set(range(0, count, 2)), set(range(count))):
        spoilt = [
            signature[:32] + bytes([signature[32] ^ 1]) + signature[33:] if number in bad else signature
            for number, signature in enumerate(signed)
        ]
        verdicts = _core.verify_signatures(public_keys, texts, offsets, b"".join(spoilt))
        assert set(np.flatnonzero(~verdicts)) == bad


def test_wrong_lengths_and_counts_are_refused() -> None:
    key = _core.SigningKey.from_seed(bytes(32))
    one = np.array([0, 1], dtype=np.uint64)
    signature = key.sign(b"m")
    for arguments, code in [
        ((key.public_key[:31], b"m", one, signature), "input.wrong_length"),
        ((key.public_key, b"m", one, signature[:63]), "input.wrong_length"),
        ((key.public_key * 2, b"m", one, signature), "input.counts_differ"),
        ((key.public_key, b"m", one, signature * 2), "input.counts_differ"),
        ((key.public_key, b"", one, signature), "offsets.out_of_range"),
    ]:
        with pytest.raises(InvalidInputError) as caught:
            _core.verify_signatures(*arguments)
        assert caught.value.code == code
    with pytest.raises(InvalidInputError) as caught:
        _core.verify_signature(key.public_key[:31], b"m", signature)
    assert caught.value.code == "key.wrong_length"
    with pytest.raises(InvalidInputError) as caught:
        _core.verify_signature(key.public_key, b"m", signature + b"\0")
    assert caught.value.code == "signature.wrong_length"
    with pytest.raises(InvalidInputError) as caught:
        _core.SigningKey.from_seed(bytes(33))
    assert caught.value.code == "key.wrong_length"


def test_keys_of_small_order_or_strange_form_are_not_registered() -> None:
    def refused(public_key: bytes) -> str:
        with pytest.raises(InvalidInputError) as caught:
            _core.check_public_key(public_key)
        return caught.value.code

    for point in SMALL_ORDER:
        assert refused(ed25519.compress(point)) == "key.small_order"
    strange = 0
    for y in range(3, 19):
        for sign in (0, 1):
            canonical = (y | sign << 255).to_bytes(32, "little")
            other = (y + ed25519.P | sign << 255).to_bytes(32, "little")
            if ed25519.decompress(canonical) is None:
                assert refused(canonical) == refused(other) == "key.not_a_point"
            else:
                _core.check_public_key(canonical)
                assert refused(other) == "key.not_canonical"
                strange += 1
    assert strange > 0
    # A point with torsion beside its large order may sign, so it may be registered.
    mixed = ed25519.add(ed25519.multiply(7, ed25519.BASE), SMALL_ORDER[1])
    _core.check_public_key(ed25519.compress(mixed))


def test_a_signing_key_shows_no_secret_and_goes_nowhere() -> None:
    key = _core.SigningKey.from_seed(b"0123456789abcdef0123456789abcdef")
    assert repr(key) == f"SigningKey(public_key={key.public_key.hex()})"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)
