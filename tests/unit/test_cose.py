"""COSE messages from Python: outside readers understand them, and a bad signature always raises."""

from __future__ import annotations

import tomllib
from pathlib import Path

import cbor2
import numpy as np
import pytest
from ehrfast._core import SigningKey, cose_sign, cose_sign1, cose_verify, cose_verify1
from ehrfast.errors import InvalidInputError, VerificationError

from tests.reference import transaction as reference

SEEDS = [bytes([number]) * 32 for number in (1, 2, 3)]
KEYS = [SigningKey.from_seed(seed) for seed in SEEDS]


def test_a_message_of_many_signers_is_the_reference_one() -> None:
    message = cose_sign(KEYS, b"payload", b"use")
    assert message == reference.cose_sign(SEEDS, b"payload", b"use")
    assert cose_sign(KEYS[::-1], b"payload", b"use") == message
    payload, signers = cose_verify(message, b"use")
    assert payload == b"payload"
    assert signers == tuple(sorted(key.public_key for key in KEYS))
    assert cose_verify(np.frombuffer(message, dtype=np.uint8), b"use") == (payload, signers)


def test_the_genesis_signature_is_pinned() -> None:
    pinned = tomllib.loads((Path(__file__).parents[1] / "vectors/formats.toml").read_text())["genesis_signature"]
    assert cose_sign(KEYS[:2], b"genesis", reference.GENESIS_AAD).hex() == pinned["example"]


def test_a_single_signature_is_read_by_cbor2() -> None:
    message = cose_sign1(KEYS[0], b"payload", b"use")
    tagged = cbor2.loads(message)
    assert tagged.tag == 18
    protected, unprotected, payload, signature = tagged.value
    assert cbor2.loads(protected) == {1: -19, 4: KEYS[0].public_key}
    assert (dict(unprotected), payload, len(signature)) == ({}, b"payload", 64)
    assert cose_verify1(message, b"use") == (b"payload", KEYS[0].public_key)


def test_a_bad_signature_raises() -> None:
    single, many = cose_sign1(KEYS[0], b"payload", b"use"), cose_sign(KEYS, b"payload", b"use")
    with pytest.raises(VerificationError, match=r"signature\.invalid"):
        cose_verify1(single, b"another use")
    with pytest.raises(VerificationError, match=r"signature\.invalid"):
        cose_verify1(single.replace(b"payload", b"PAYLOAD"), b"use")
    with pytest.raises(VerificationError) as caught:
        cose_verify(many[:-1] + bytes([many[-1] ^ 1]), b"use")
    assert caught.value.details == {"position": 2}


def test_other_forms_are_refused() -> None:
    single, many = cose_sign1(KEYS[0], b"", b""), cose_sign(KEYS, b"", b"")
    with pytest.raises(InvalidInputError) as caught:
        cose_verify1(single + b"\0", b"")
    assert caught.value.code == "cose.malformed"
    assert caught.value.details == {"offset": len(single), "reason": "cbor.trailing_bytes"}
    with pytest.raises(InvalidInputError, match=r"cose\.malformed"):
        cose_verify1(many, b"")
    with pytest.raises(InvalidInputError, match=r"cose\.malformed"):
        cose_verify(single, b"")
    with pytest.raises(InvalidInputError, match=r"cose\.no_signer"):
        cose_sign([], b"", b"")
    with pytest.raises(InvalidInputError, match=r"cose\.signer_order"):
        cose_sign([KEYS[0], KEYS[1], KEYS[0]], b"", b"")
