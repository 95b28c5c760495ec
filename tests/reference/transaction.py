"""Transactions made without the core: our reference CBOR, pyca/cryptography, blake3-py, hashlib.

``generated`` is the seeded generation behind the pinned hashes of tests/vectors/formats.toml; its twin is
rust/core/tests/transaction.rs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.reference.cbor import encode, head

EXTERNAL_AAD = b"ehrfast/transaction/v1"
GENESIS_AAD = b"ehrfast/genesis/v1"


@dataclass(frozen=True, slots=True)
class Fields:
    """What is signed, and the seed of the key that signs it."""

    seed: bytes
    chain_id: str
    contract: str
    method: str
    args: dict[int, object]
    lane: int
    expires: int
    salt: bytes
    attachments: tuple[tuple[bytes, bytes], ...]

    def payload(self) -> bytes:
        fields: dict[int, object] = {
            1: self.chain_id,
            2: self.contract,
            3: self.method,
            4: self.args,
            5: self.lane,
            6: self.expires,
            7: self.salt,
        }
        if self.attachments:
            fields[8] = self.attachments
        return encode(fields)

    def signed(self) -> bytes:
        return encode(("Signature1", protected(self.public_key()), EXTERNAL_AAD, self.payload()))

    def public_key(self) -> bytes:
        return public_key(self.seed)

    def received(self) -> bytes:
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(self.signed())
        message: tuple[object, ...] = (protected(self.public_key()), {}, self.payload(), signature)
        return head(6, 18) + encode(message)

    def id(self) -> bytes:
        return blake3.blake3(self.signed()).digest()

    def received_digest(self) -> bytes:
        return hashlib.sha256(self.received()).digest()


def public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def protected(key: bytes) -> bytes:
    return encode({1: -19, 4: key})


def cose_sign(seeds: list[bytes], payload: bytes, external_aad: bytes) -> bytes:
    """A COSE_Sign by the keys of ``seeds``."""
    signatures: list[object] = []
    for seed in sorted(seeds, key=public_key):
        header = protected(public_key(seed))
        signed = encode(("Signature", b"", header, external_aad, payload))
        signatures.append((header, {}, Ed25519PrivateKey.from_private_bytes(seed).sign(signed)))
    return head(6, 98) + encode((b"", {}, payload, signatures))


class Stream:
    """Bytes drawn from the BLAKE3 output of a label, front to back."""

    def __init__(self, label: str) -> None:
        self._bytes = blake3.blake3(label.encode()).digest(length=65536)
        self._taken = 0

    def take(self, count: int) -> bytes:
        self._taken += count
        return self._bytes[self._taken - count : self._taken]

    def below(self, bound: int) -> int:
        """One byte, modulo ``bound``."""
        return self.take(1)[0] % bound

    def number(self, least_shift: int) -> int:
        """Eight bytes, most significant first, shifted right by a drawn amount: all magnitudes occur."""
        value = int.from_bytes(self.take(8), "big")
        return value >> (least_shift + self.below(64 - least_shift))

    def name(self) -> str:
        return "".join(chr(ord("a") + self.below(26)) for _ in range(1 + self.below(12)))

    def value(self, depth: int) -> object:
        kind = self.below(5 if depth == 3 else 7)
        if kind == 0:
            return self.number(0)
        if kind == 1:
            return -1 - self.number(1)
        if kind == 2:
            return self.take(self.take(1)[0])
        if kind == 3:
            return "".join("aé日🙂ß "[self.below(6)] for _ in range(self.below(20)))
        if kind == 4:
            return (True, False, None)[self.below(3)]
        count = self.below(4)
        if kind == 5:
            return tuple(self.value(depth + 1) for _ in range(count))
        return {key: self.value(depth + 1) for key in (0, 1, -1, -2)[:count]}


def generated(number: int) -> Fields:
    """The transaction of that number, the same on every machine and in both languages."""
    draw = Stream(f"ehrfast transaction vector {number}")
    return Fields(
        seed=draw.take(32),
        salt=draw.take(16),
        expires=draw.number(1),
        lane=draw.below(3),
        chain_id=f"vector-{draw.take(16).hex()}",
        contract=draw.name(),
        method=draw.name(),
        args={key: draw.value(0) for key in range(1, 1 + draw.below(5))},
        attachments=tuple((draw.take(32), draw.take(32)) for _ in range(draw.below(3))),
    )
