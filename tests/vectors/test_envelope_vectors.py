"""Published vectors for the twin's HPKE and AES-KW, and our own pinned encodings."""

from __future__ import annotations

import tomllib
from pathlib import Path

from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from ehrfast import _core

from tests.reference import envelope as twin

ROOT = Path(__file__).parents[2]
PINNED = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text())["envelope"]


def test_hpke_of_the_twin_gives_rfc_9180_appendix_a_1_1() -> None:
    """Source: RFC 9180, A.1.1, base mode, sequence number 0. It differs from our suite in the AEAD alone."""
    suite = twin.Hpke(aead=1, key_bytes=16)
    recipient = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    public = bytes.fromhex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
    ephemeral = bytes.fromhex("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736")
    encapsulated = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    plaintext = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
    aad = bytes.fromhex("436f756e742d30")
    ciphertext = bytes.fromhex(
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    assert suite.seal(public, ephemeral, info, aad, plaintext) == (encapsulated, ciphertext)
    assert suite.open(recipient, encapsulated, info, aad, ciphertext) == plaintext


def test_key_wrap_of_the_twin_gives_rfc_3394_section_4_6() -> None:
    """Source: RFC 3394, 4.6: 256 bits of key data under a 256-bit key."""
    wrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
    data = bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
    assert aes_key_wrap(bytes(range(32)), data).hex() == wrapped


def test_the_twin_gives_the_pinned_encodings() -> None:
    assert {"count": twin.PINNED, **twin.pinned()} == PINNED


def test_pinned_examples_open() -> None:
    record = twin.generated_record(1)
    key = _core.ClassKey.derive(
        record.key.root, record.key.subject, record.key.custodian, record.key.class_, record.key.epoch
    )
    for wraps in ("example_wraps", "example_public_wraps"):
        content, opening_key = _core.open_record(
            bytes.fromhex(PINNED["example_item"]),
            bytes.fromhex(PINNED[wraps]),
            key,
            origin=record.place.origin,
            record_id=record.place.record_id,
            version=record.place.version,
            class_=record.place.class_,
            commitment=bytes.fromhex(PINNED["example_commitment"]),
        )
        assert content == record.content
        assert opening_key == twin.opening_key(record.content_key)
