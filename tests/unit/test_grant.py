"""Grants: what Python hands over, the names of refusals, and other implementations of HPKE."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from ehrfast import _core
from ehrfast._core import ClassKey, ClassPublicKey, GrantKey, open_grant
from ehrfast.errors import EhrfastError, InvalidInputError, VerificationError

from tests.reference import envelope as twin
from tests.reference import grant as twin_grant

PINNED = tomllib.loads((Path(__file__).parents[1] / "vectors/formats.toml").read_text())["grant"]
ORIGIN = "main-" + "0" * 32
RECIPIENT = b"\x07" * 16
TWIN = twin.TwinKey(b"\x09" * 32, b"\x01" * 16, b"\x02" * 16, "clinical", b"\x03" * 16)


def class_key(root: bytes = TWIN.root, class_: str = TWIN.class_, epoch: bytes = TWIN.epoch) -> ClassKey:
    return ClassKey.derive(root, TWIN.subject, TWIN.custodian, class_, epoch)


def posted(key: ClassKey) -> ClassPublicKey:
    return ClassPublicKey(key.subject, key.custodian, key.class_, key.epoch, key.public_key)


def suites() -> list[str]:
    try:
        GrantKey.generate("xwing")
    except InvalidInputError:
        return ["x25519"]
    return ["x25519", "xwing"]


@pytest.mark.parametrize("suite", suites())
def test_a_granted_key_opens_what_was_sealed_for_its_class(suite: str) -> None:
    key, recipient = class_key(), GrantKey.generate(suite)
    sealed = key.grant(recipient.public_key, origin=ORIGIN, recipient=RECIPIENT, suite=suite)
    again = GrantKey.from_seed(recipient.seed, suite)
    granted = open_grant(sealed, again, posted(key), origin=ORIGIN, recipient=RECIPIENT)
    span = np.array([[0, 2]], dtype=np.uint64)
    pack = _core.seal_records(ORIGIN, b"{}", span, [(b"\x04" * 16, 1, "clinical", [key])])
    content, _ = _core.open_record(
        pack.item(0),
        pack.wraps(0),
        granted,
        origin=ORIGIN,
        record_id=b"\x04" * 16,
        version=1,
        class_="clinical",
        commitment=pack.commitments[0],
    )
    assert content == b"{}"
    assert (granted.kid, again.suite, again.public_key) == (key.kid, suite, recipient.public_key)
    assert recipient.seed.hex() not in repr(recipient)


def test_refusals_are_named() -> None:
    key, recipient = class_key(), GrantKey.generate()
    sealed = key.grant(recipient.public_key, origin=ORIGIN, recipient=RECIPIENT)

    def opened(
        data: bytes = sealed,
        own: GrantKey = recipient,
        of: ClassKey = key,
        origin: str = ORIGIN,
        to: bytes = RECIPIENT,
    ) -> object:
        return open_grant(data, own, posted(of), origin=origin, recipient=to)

    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    wrong_seed = class_key(root=bytes(32)).grant(recipient.public_key, origin=ORIGIN, recipient=RECIPIENT)
    other_subject = ClassKey.derive(TWIN.root, bytes(16), TWIN.custodian, "clinical", TWIN.epoch)
    other_custodian = ClassKey.derive(TWIN.root, TWIN.subject, bytes(16), "clinical", TWIN.epoch)
    cases: list[tuple[Callable[[], object], type[EhrfastError], str]] = [
        (lambda: opened(own=GrantKey.generate()), VerificationError, "grant.cannot_open"),
        (lambda: opened(to=bytes(16)), VerificationError, "grant.cannot_open"),
        (lambda: opened(origin="main-" + "1" * 32), VerificationError, "grant.cannot_open"),
        (lambda: opened(data=flipped), VerificationError, "grant.cannot_open"),
        (lambda: opened(data=wrong_seed), VerificationError, "grant.other_seed"),
        (lambda: opened(of=class_key(epoch=bytes(16))), VerificationError, "grant.other_epoch"),
        (lambda: opened(of=class_key(class_="audit")), VerificationError, "grant.other_class"),
        (lambda: opened(of=other_subject), VerificationError, "grant.other_subject"),
        (lambda: opened(of=other_custodian), VerificationError, "grant.other_custodian"),
        (lambda: opened(data=sealed[:-1]), InvalidInputError, "grant.malformed"),
        (lambda: opened(origin=""), InvalidInputError, "grant.origin"),
        (lambda: opened(to=b""), InvalidInputError, "grant.recipient_length"),
        (lambda: GrantKey.generate("p256"), InvalidInputError, "grant.suite"),
        (lambda: GrantKey.from_seed(b""), InvalidInputError, "key.wrong_length"),
        (lambda: key.grant(bytes(32), origin=ORIGIN, recipient=RECIPIENT), InvalidInputError, "grant.public_key"),
        (lambda: key.grant(b"", origin=ORIGIN, recipient=RECIPIENT), InvalidInputError, "grant.public_key"),
    ]
    for attempt, error, code in cases:
        with pytest.raises(error) as caught:
            attempt()
        assert caught.value.code == code


def test_the_twin_opens_ours_and_we_open_its() -> None:
    recipient = GrantKey.generate()
    sealed = class_key().grant(recipient.public_key, origin=ORIGIN, recipient=RECIPIENT)
    assert twin_grant.open_grant(sealed, recipient.seed, ORIGIN, RECIPIENT) == TWIN.seed
    assert twin_grant.example().hex() == PINNED["example"]
    pinned = GrantKey.from_seed(b"\x05" * 32)
    example = bytes.fromhex(PINNED["example"])
    opened = open_grant(example, pinned, posted(class_key()), origin=ORIGIN, recipient=RECIPIENT)
    assert opened.public_key == class_key().public_key


def test_the_hpke_of_pyca_cryptography_opens_the_twin_s_and_the_other_way_round() -> None:
    """Theirs takes no associated data, so the twin, which opens ours, is held against it without any."""
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    private = X25519PrivateKey.generate()
    own = private.private_bytes_raw()
    theirs = suite.encrypt(TWIN.seed, private.public_key(), twin_grant.INFO)
    assert twin.OURS.open(own, theirs[:32], twin_grant.INFO, b"", theirs[32:]) == TWIN.seed
    encapsulated, sealed = twin.OURS.seal(twin_grant.public_of(own), b"\x06" * 32, twin_grant.INFO, b"", TWIN.seed)
    assert suite.decrypt(encapsulated + sealed, private, twin_grant.INFO) == TWIN.seed


def test_the_pinned_x_wing_grant_opens_with_the_ml_kem_of_pyca_cryptography() -> None:
    """Where the core has the feature `xwing`, its own tests open the same bytes."""
    data = bytes.fromhex(PINNED["xwing"])
    assert twin_grant.open_xwing(data, b"\x05" * 32, ORIGIN, RECIPIENT) == TWIN.seed
    if "xwing" in suites():
        recipient = GrantKey.from_seed(b"\x05" * 32, "xwing")
        sealed = class_key().grant(recipient.public_key, origin=ORIGIN, recipient=RECIPIENT, suite="xwing")
        assert twin_grant.open_xwing(sealed, recipient.seed, ORIGIN, RECIPIENT) == TWIN.seed
    else:
        with pytest.raises(InvalidInputError) as caught:
            open_grant(data, GrantKey.generate(), posted(class_key()), origin=ORIGIN, recipient=RECIPIENT)
        assert caught.value.code == "grant.suite"
