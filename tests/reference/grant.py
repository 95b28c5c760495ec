"""Grants, slow and readable: what rust/core/src/grant.rs must agree with. Source: docs/formats.md, "Grants".

HPKE is the twin's own of tests/reference/envelope.py, which is checked by the vectors of RFC 9180.
"""

from __future__ import annotations

import hashlib

import cbor2
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.reference.envelope import EK, HPKE, OURS, Hpke, TwinKey, public_bytes

INFO = b"ehrfast/grant/v1"


def public_of(private: bytes) -> bytes:
    return public_bytes(X25519PrivateKey.from_private_bytes(private).public_key())


def aad(protected: bytes, origin: str, recipient: bytes, public: bytes) -> bytes:
    return cbor2.dumps(["Encrypt0", protected, cbor2.dumps([1, origin, recipient, public])])


def grant(key: TwinKey, public: bytes, origin: str, recipient: bytes, ephemeral: bytes) -> bytes:
    """COSE_Encrypt0 of the class seed under a given ephemeral key; real ones are fresh."""
    protected = cbor2.dumps({1: HPKE, 4: key.kid, EK: public_of(ephemeral)})
    _, sealed = OURS.seal(public, ephemeral, INFO, aad(protected, origin, recipient, public), key.seed)
    return cbor2.dumps(cbor2.CBORTag(16, [protected, {}, sealed]))


def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """(protected, encapsulated key, sealed seed)."""
    protected, unprotected, sealed = cbor2.loads(data).value
    assert unprotected == {}
    return protected, cbor2.loads(protected)[EK], sealed


def open_grant(data: bytes, private: bytes, origin: str, recipient: bytes) -> bytes:
    """The class seed."""
    protected, encapsulated, sealed = parts(data)
    return OURS.open(private, encapsulated, INFO, aad(protected, origin, recipient, public_of(private)), sealed)


def example() -> bytes:
    """The pinned grant: root key 32 x 09, recipient's key 32 x 05, ephemeral key 32 x 06."""
    key = TwinKey(b"\x09" * 32, b"\x01" * 16, b"\x02" * 16, "clinical", b"\x03" * 16)
    return grant(key, public_of(b"\x05" * 32), "main-" + "0" * 32, b"\x07" * 16, b"\x06" * 32)


# ── X-Wing, by the ML-KEM-768 and X25519 of `cryptography`. Source: draft-connolly-cfrg-xwing-kem ──

HPKE_XWING = -65539
XWING_LABEL = b"\\.//^\\"


def xwing_keys(seed: bytes) -> tuple[MLKEM768PrivateKey, bytes, bytes]:
    """(ML-KEM key, X25519 private key, public key) of a 32-byte seed."""
    expanded = hashlib.shake_256(seed).digest(96)
    lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    public = lattice.public_key().public_bytes_raw() + public_of(expanded[64:])
    return lattice, expanded[64:], public


def xwing_secret(lattice: bytes, exchanged: bytes, ephemeral_public: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(lattice + exchanged + ephemeral_public + public[-32:] + XWING_LABEL).digest()


def exchange(private: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


XWING = Hpke(aead=2, key_bytes=32, kem=0x647A)


def grant_xwing(key: TwinKey, seed: bytes, origin: str, recipient: bytes, ephemeral: bytes) -> bytes:
    """A grant to the X-Wing key of a seed; the ML-KEM part is random."""
    lattice, _, public = xwing_keys(seed)
    secret, ciphertext = lattice.public_key().encapsulate()
    encapsulated = ciphertext + public_of(ephemeral)
    shared = xwing_secret(secret, exchange(ephemeral, public[-32:]), encapsulated[-32:], public)
    aead_key, nonce = XWING.key_and_nonce(shared, INFO)
    protected = cbor2.dumps({1: HPKE_XWING, 4: key.kid, EK: encapsulated})
    sealed = AESGCM(aead_key).encrypt(nonce, key.seed, aad(protected, origin, recipient, public))
    return cbor2.dumps(cbor2.CBORTag(16, [protected, {}, sealed]))


def open_xwing(data: bytes, seed: bytes, origin: str, recipient: bytes) -> bytes:
    """The class seed."""
    protected, encapsulated, sealed = parts(data)
    lattice, private, public = xwing_keys(seed)
    secret = lattice.decapsulate(encapsulated[:-32])
    shared = xwing_secret(secret, exchange(private, encapsulated[-32:]), encapsulated[-32:], public)
    aead_key, nonce = XWING.key_and_nonce(shared, INFO)
    return AESGCM(aead_key).decrypt(nonce, sealed, aad(protected, origin, recipient, public))
