"""Sealing records in Python: encrypt, commit, digest and wrap with `cryptography` and `blake3`, one after another."""

from __future__ import annotations

import os
from collections.abc import Sequence

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

_CONTEXT = "ehrfast 2026-11 {} v1"
_NONCE = bytes(12)


def seal_in_python(contents: Sequence[bytes], wrap_key: bytes, external_aad: bytes) -> list[tuple[bytes, ...]]:
    """For each record the ciphertext, its wrap, its commitment and the digests of both parts."""
    return [_seal(content, wrap_key, external_aad) for content in contents]


def _seal(content: bytes, wrap_key: bytes, external_aad: bytes) -> tuple[bytes, ...]:
    key = os.urandom(32)
    key_commitment = _derive("key-commitment", key)
    opening_key = _derive("opening", key)
    item = AESGCM(key).encrypt(_NONCE, content, external_aad + key_commitment)
    commitment = blake3(blake3(content).digest(), key=opening_key).digest()
    wrap = aes_key_wrap(wrap_key, key)
    return item, wrap, commitment, _keyed_digest(item), _keyed_digest(wrap)


def _derive(use: str, key: bytes) -> bytes:
    return blake3(key + b"\x80", derive_key_context=_CONTEXT.format(use)).digest()


_PACK_ITEM = blake3(b"", derive_key_context=_CONTEXT.format("pack-item")).digest()


def _keyed_digest(data: bytes) -> bytes:
    return blake3(data, key=_PACK_ITEM).digest()


def encrypt_alone(contents: Sequence[bytes], external_aad: bytes) -> list[bytes]:
    """AES-256-GCM under a fresh key each, and nothing else."""
    return [AESGCM(os.urandom(32)).encrypt(_NONCE, content, external_aad) for content in contents]
