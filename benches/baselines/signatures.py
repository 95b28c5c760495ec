"""Checking signatures one by one with the two usual packages; both hold the GIL's owner for one core."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.signing import VerifyKey

Signed = tuple[bytes, bytes, bytes]
"""Public key, message, signature."""


def verify_with_cryptography(signed: Sequence[Signed]) -> None:
    """A key object per item: the signer is not known beforehand."""
    for key, message, signature in signed:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def verify_with_pynacl(signed: Sequence[Signed]) -> None:
    """The same through libsodium."""
    for key, message, signature in signed:
        VerifyKey(key).verify(message, signature)


def verify_with_kept_keys(signed: Sequence[Signed], keys: dict[bytes, Ed25519PublicKey]) -> None:
    """With key objects made beforehand, as a service with few signers would hold them."""
    for key, message, signature in signed:
        keys[key].verify(signature, message)
