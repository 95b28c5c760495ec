"""Sealed records, slow and readable: what rust/core/src/envelope.rs must agree with.

Built on other people's code only: `cryptography` for AES-GCM, AES-KW and X25519, `blake3`, `cbor2`. HPKE is written out
from RFC 9180 (base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256), so the suite we use is checked by its own vectors.
Source: docs/formats.md, "Records, packs, keys".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import blake3
import cbor2
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ZERO_NONCE = bytes(12)
WRAP_INFO = b"ehrfast/wrap/v1"
KEY_COMMITMENT, HPKE, EK = -65537, -65538, -4


def context(use: str) -> str:
    """ctx(use)."""
    return f"ehrfast 2026-11 {use} v1"


def keyed(use: str, data: bytes) -> bytes:
    """keyed[use](data)."""
    key = blake3.blake3(b"", derive_key_context=context(use)).digest()
    return blake3.blake3(data, key=key).digest()


def derive(use: str, key: bytes, info: object) -> bytes:
    """derive(use, key, info)."""
    return blake3.blake3(key + cbor2.dumps(info), derive_key_context=context(use)).digest()


def public_bytes(key: X25519PublicKey) -> bytes:
    """The 32 bytes of an X25519 public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


# ── HPKE, RFC 9180 ──


@dataclass(frozen=True, slots=True)
class Hpke:
    """One suite with X25519 and HKDF-SHA256; the AEAD by its identifier and key length."""

    aead: int
    key_bytes: int
    kem: int = 0x20

    def suite_id(self) -> bytes:
        """Section 5.1."""
        return b"HPKE" + self.kem.to_bytes(2) + (1).to_bytes(2) + self.aead.to_bytes(2)

    def key_and_nonce(self, shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
        """KeySchedule of section 5.1 in base mode."""
        suite = self.suite_id()
        psk_id_hash = labeled_extract(suite, b"", b"psk_id_hash", b"")
        info_hash = labeled_extract(suite, b"", b"info_hash", info)
        schedule = b"\x00" + psk_id_hash + info_hash
        secret = labeled_extract(suite, shared_secret, b"secret", b"")
        key = labeled_expand(suite, secret, b"key", schedule, self.key_bytes)
        return key, labeled_expand(suite, secret, b"base_nonce", schedule, 12)

    def seal(self, public: bytes, ephemeral: bytes, info: bytes, aad: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """(encapsulated key, ciphertext) with the given ephemeral private key."""
        private = X25519PrivateKey.from_private_bytes(ephemeral)
        encapsulated = public_bytes(private.public_key())
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        key, nonce = self.key_and_nonce(shared_secret(shared, encapsulated, public), info)
        return encapsulated, AESGCM(key).encrypt(nonce, plaintext, aad)

    def open(self, private: bytes, encapsulated: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """The plaintext."""
        own = X25519PrivateKey.from_private_bytes(private)
        shared = own.exchange(X25519PublicKey.from_public_bytes(encapsulated))
        secret = shared_secret(shared, encapsulated, public_bytes(own.public_key()))
        key, nonce = self.key_and_nonce(secret, info)
        return AESGCM(key).decrypt(nonce, ciphertext, aad)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    """Section 4; HKDF-Extract is HMAC with the salt as key."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, hashlib.sha256)


def labeled_expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """Section 4; one block of HKDF-Expand is enough for at most 32 bytes."""
    labeled = length.to_bytes(2) + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labeled + b"\x01", hashlib.sha256)[:length]


def shared_secret(exchanged: bytes, encapsulated: bytes, public: bytes) -> bytes:
    """ExtractAndExpand of section 4.1."""
    suite = b"KEM" + (0x20).to_bytes(2)
    extracted = labeled_extract(suite, b"", b"eae_prk", exchanged)
    return labeled_expand(suite, extracted, b"shared_secret", encapsulated + public, 32)


OURS = Hpke(aead=2, key_bytes=32)


# ── class keys ──


@dataclass(frozen=True, slots=True)
class TwinKey:
    """The key of (subject, custodian, class, epoch) under a root key."""

    root: bytes
    subject: bytes
    custodian: bytes
    class_: str
    epoch: bytes

    @property
    def kid(self) -> bytes:
        """How a wrap names it."""
        return cbor2.dumps([self.subject, self.custodian, self.class_, self.epoch])

    @property
    def seed(self) -> bytes:
        """The class seed."""
        return derive("class", self.root, [self.class_, self.epoch])

    @property
    def wrap_key(self) -> bytes:
        """For AES-KW."""
        return derive("wrap", self.seed, [])

    @property
    def private_key(self) -> bytes:
        """For HPKE."""
        return derive("seal-to", self.seed, [])

    @property
    def public_key(self) -> bytes:
        """Its public half."""
        return public_bytes(X25519PrivateKey.from_private_bytes(self.private_key).public_key())


# ── items ──


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    origin: str
    record_id: bytes
    version: int
    class_: str

    @property
    def external_aad(self) -> bytes:
        """What is authenticated with it."""
        return cbor2.dumps([1, self.origin, self.record_id, self.version, self.class_])


def seal_item(place: Place, content: bytes, content_key: bytes) -> bytes:
    """COSE_Encrypt0 under a given content key; real ones are fresh."""
    protected = cbor2.dumps({1: 3, 5: ZERO_NONCE, KEY_COMMITMENT: derive("key-commitment", content_key, [])})
    aad = cbor2.dumps(["Encrypt0", protected, place.external_aad])
    ciphertext = AESGCM(content_key).encrypt(ZERO_NONCE, content, aad)
    return cbor2.dumps(cbor2.CBORTag(16, [protected, {}, ciphertext]))


def open_item(place: Place, item: bytes, content_key: bytes) -> bytes:
    """The content; raises where anything differs."""
    tagged = cbor2.loads(item)
    assert tagged.tag == 16
    protected, unprotected, ciphertext = tagged.value
    header = cbor2.loads(protected)
    assert unprotected == {}
    assert header == {1: 3, 5: ZERO_NONCE, KEY_COMMITMENT: derive("key-commitment", content_key, [])}
    return AESGCM(content_key).decrypt(ZERO_NONCE, ciphertext, cbor2.dumps(["Encrypt0", protected, place.external_aad]))


def opening_key(content_key: bytes) -> bytes:
    """What is disclosed with content."""
    return derive("opening", content_key, [])


def commitment(key: bytes, content: bytes) -> bytes:
    """What state keeps, given the opening key."""
    return blake3.blake3(blake3.blake3(content).digest(), key=key).digest()


# ── wraps ──


def wrap_class(key: TwinKey, content_key: bytes) -> tuple[bytes, list[object]]:
    """(kid, COSE recipient) under the wrap key."""
    return key.kid, [b"", {1: -5, 4: key.kid}, aes_key_wrap(key.wrap_key, content_key)]


def wrap_public(
    kid: bytes, public: bytes, place: Place, content_key: bytes, ephemeral: bytes
) -> tuple[bytes, list[object]]:
    """(kid, COSE recipient) sealed to a public key."""
    encapsulated = public_bytes(X25519PrivateKey.from_private_bytes(ephemeral).public_key())
    protected = cbor2.dumps({1: HPKE, 4: kid, EK: encapsulated})
    aad = cbor2.dumps(["Enc_Recipient", protected, place.external_aad])
    _, wrapped = OURS.seal(public, ephemeral, WRAP_INFO, aad, content_key)
    return kid, [protected, {}, wrapped]


def join_wraps(wraps: Sequence[tuple[bytes, list[object]]]) -> bytes:
    """The wraps of one record, by kid."""
    return cbor2.dumps([recipient for _, recipient in sorted(wraps, key=lambda wrap: wrap[0])])


def unwrap(wraps: bytes, key: TwinKey, place: Place) -> bytes | None:
    """The content key, None if no wrap is for this key."""
    for protected, unprotected, wrapped in cbor2.loads(wraps):
        if protected == b"":
            if unprotected[4] == key.kid:
                assert unprotected == {1: -5, 4: key.kid}
                return aes_key_unwrap(key.wrap_key, wrapped)
            continue
        header = cbor2.loads(protected)
        if header[4] == key.kid:
            assert header == {1: HPKE, 4: key.kid, EK: header[EK]}
            aad = cbor2.dumps(["Enc_Recipient", protected, place.external_aad])
            return OURS.open(key.private_key, header[EK], WRAP_INFO, aad, wrapped)
    return None


# ── packs ──


def pack_root(digests: Sequence[bytes]) -> bytes:
    """keyed["pack"](count ‖ root), the root shaped as RFC 6962 shapes it."""

    def root(part: Sequence[bytes]) -> bytes:
        if len(part) < 2:
            return part[0] if part else bytes(32)
        split = 1 << (len(part) - 1).bit_length() - 1
        return keyed("pack-node", root(part[:split]) + root(part[split:]))

    return keyed("pack", len(digests).to_bytes(8) + root(digests))


def root_of(parts: Sequence[bytes]) -> bytes:
    """The root over items, or over wraps."""
    return pack_root([keyed("pack-item", part) for part in parts])


# ── generated encodings, pinned in tests/vectors/formats.toml ──

PINNED = 64


def generated_key(number: int) -> TwinKey:
    """Class key ``number`` of the pinned ones."""
    byte = bytes([number])
    return TwinKey(byte * 32, byte * 16, bytes([255 - number]) * 16, f"Class-{number}", blake3.blake3(byte).digest(16))


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the pinned ones."""

    key: TwinKey
    place: Place
    content: bytes
    content_key: bytes

    @property
    def item(self) -> bytes:
        """Sealed."""
        return seal_item(self.place, self.content, self.content_key)

    @property
    def wraps(self) -> bytes:
        """For its key alone."""
        return join_wraps([wrap_class(self.key, self.content_key)])

    @property
    def public_wraps(self) -> bytes:
        """Sealed to the public half of its key."""
        ephemeral = blake3.blake3(b"ephemeral" + self.content_key).digest()
        return join_wraps([wrap_public(self.key.kid, self.key.public_key, self.place, self.content_key, ephemeral)])

    @property
    def commitment(self) -> bytes:
        """In state."""
        return commitment(opening_key(self.content_key), self.content)


def generated_record(number: int) -> Record:
    """Record ``number`` of the pinned ones."""
    key, byte = generated_key(number), bytes([number])
    return Record(
        key=key,
        place=Place("main-" + "0" * 32, byte * 16, number + 1, key.class_),
        content=blake3.blake3(b"content" + byte).digest(number * 37) if number else b"",
        content_key=blake3.blake3(b"content key" + byte).digest(),
    )


def pinned() -> dict[str, str]:
    """What section ``[envelope]`` of formats.toml holds."""
    records = [generated_record(number) for number in range(PINNED)]
    items, wraps = [record.item for record in records], [record.wraps for record in records]

    def over(parts: Sequence[bytes]) -> str:
        return blake3.blake3(b"".join(len(part).to_bytes(4) + part for part in parts)).hexdigest()

    return {
        "kids": over([record.key.kid for record in records]),
        "public_keys": over([record.key.public_key for record in records]),
        "external_aads": over([record.place.external_aad for record in records]),
        "items": over(items),
        "wraps": over(wraps),
        "commitments": over([record.commitment for record in records]),
        "opening_keys": over([opening_key(record.content_key) for record in records]),
        "root": root_of(items).hex(),
        "wraps_root": root_of(wraps).hex(),
        "example_item": items[1].hex(),
        "example_wraps": wraps[1].hex(),
        "example_public_wraps": records[1].public_wraps.hex(),
        "example_commitment": records[1].commitment.hex(),
    }
