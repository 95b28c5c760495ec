"""Notes, checkpoints, cosignatures and proof texts: what is written, and that nothing else is read."""

from __future__ import annotations

import tomllib
from base64 import b64encode
from pathlib import Path

import pytest
from ehrfast._core import Log, SigningKey, log_leaf_hash
from ehrfast.errors import EhrfastError, InvalidInputError, VerificationError
from ehrfast.model.checkpoint import (
    COSIGNATURE,
    LOG_SIGNATURE,
    Checkpoint,
    Note,
    NoteSignature,
    VerifierKey,
    add_signatures,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verifier_key,
    verify_cosignature,
    witness_key,
)
from ehrfast.model.tlog_proof import TlogProof

ROOT = Path(__file__).parents[2]
LOG_KEY = SigningKey.from_seed(bytes(32))
WITNESS_KEY = SigningKey.from_seed(b"\1" * 32)
ORIGIN = "clinic-north-0123456789abcdef0123456789abcdef"
VKEY = verifier_key(ORIGIN, LOG_KEY.public_key)
WITNESS = witness_key("witness.example/w1", WITNESS_KEY.public_key)
LEAVES = [b"leaf %d" % index for index in range(11)]


def log() -> Log:
    made = Log()
    made.append(LEAVES)
    return made


def signed(tree_size: int = 11) -> bytes:
    return sign_checkpoint(Checkpoint(ORIGIN, tree_size, log().root(tree_size)), LOG_KEY)


def code_of(refusal: pytest.ExceptionInfo[EhrfastError]) -> str:
    return refusal.value.code


def test_a_checkpoint_is_three_lines_and_one_signature() -> None:
    root = b64encode(log().root()).decode()
    text, signature = signed().decode().split("\n\n")
    assert text == f"{ORIGIN}\n11\n{root}"
    assert signature.startswith(f"— {ORIGIN} ")
    assert open_checkpoint(signed(), VKEY) == Checkpoint(ORIGIN, 11, log().root())


def test_a_vkey_reads_back_as_itself_alone() -> None:
    assert VerifierKey.decode(VKEY) == VerifierKey(ORIGIN, LOG_SIGNATURE, LOG_KEY.public_key)
    assert VerifierKey.decode(WITNESS) == VerifierKey("witness.example/w1", COSIGNATURE, WITNESS_KEY.public_key)
    altered = [VKEY[:cut] for cut in range(len(VKEY))] + [VKEY + "\n", VKEY + "=", " " + VKEY, "x" + VKEY, VKEY.upper()]
    altered.append(VerifierKey.decode(VKEY).encode().replace("+A", "+B"))
    for text in altered:
        with pytest.raises(InvalidInputError, match=r"verifier_key\.malformed"):
            VerifierKey.decode(text)
    for name in ("", "a+b", "a b", "a\u00a0b", "a\nb", "a\x00b"):
        with pytest.raises(InvalidInputError, match=r"verifier_key\.malformed"):
            verifier_key(name, LOG_KEY.public_key)


# Source: C2SP tlog-cosignature, the example note.
SOFA = b"""example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\xe2\x80\x94 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+\
zyWE+xeMcTOAYQ8=
\xe2\x80\x94 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo\
0xUe+mbIUBkBIfZ+qnA==
"""


def test_the_note_of_the_specification_is_read() -> None:
    note = Note.parse(SOFA)
    assert note.render() == SOFA
    assert Checkpoint.parse(note.text).tree_size == 20852163
    assert [each.name for each in note.signatures] == ["example.com/behind-the-sofa", "witness.example.com/w1"]
    assert int.from_bytes(note.signatures[1].signature[:8], "big") == 1679315147


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"o\n1\n",
        b"\n1\n" + b64encode(bytes(32)) + b"\n",
        b"o\n01\n" + b64encode(bytes(32)) + b"\n",
        b"o\n+1\n" + b64encode(bytes(32)) + b"\n",
        b"o\n-1\n" + b64encode(bytes(32)) + b"\n",
        b"o\n\xd9\xa1\n" + b64encode(bytes(32)) + b"\n",
        b"o\n%d\n" % 2**63 + b64encode(bytes(32)) + b"\n",
        b"o\n1\n" + b64encode(bytes(31)) + b"\n",
        b"o\n1\n" + b64encode(bytes(32)),
        b"o\n1\n" + b64encode(bytes(32)) + b"\n\n",
        b"o\n1\n" + b64encode(bytes(32)) + b"\nextension\n",
        b"o\n1\n" + b64encode(bytes(32)).replace(b"A=", b"B=") + b"\n",
        b"\xff\n1\n" + b64encode(bytes(32)) + b"\n",
    ],
)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"checkpoint\.malformed"):
        Checkpoint.parse(body)


def test_every_truncation_and_every_flipped_bit_of_a_note_is_refused() -> None:
    note = add_signatures(signed(), [cosign(signed(), WITNESS_KEY, "witness.example/w1", timestamp=1_800_000_000)])
    assert open_checkpoint(note, VKEY, witnesses=[WITNESS], quorum=1).tree_size == 11
    broken = [note[:cut] for cut in range(len(note))]
    broken += [note[:at] + bytes([note[at] ^ 1 << bit]) + note[at + 1 :] for at in range(len(note)) for bit in range(8)]
    for each in broken:
        with pytest.raises((InvalidInputError, VerificationError)):
            open_checkpoint(each, VKEY, witnesses=[WITNESS], quorum=1)


def test_only_the_trusted_key_opens_a_checkpoint() -> None:
    other = SigningKey.from_seed(b"\2" * 32)
    with pytest.raises(VerificationError) as refusal:
        open_checkpoint(signed(), verifier_key(ORIGIN, other.public_key))
    assert code_of(refusal) == "checkpoint.not_signed"
    body = Note.parse(signed()).text
    forged = NoteSignature(ORIGIN, VerifierKey.decode(VKEY).key_id, other.sign(body))
    with pytest.raises(VerificationError) as refusal:
        open_checkpoint(Note(body, (forged,)).render(), VKEY)
    assert code_of(refusal) == "checkpoint.signature_invalid"
    genuine = Note.parse(signed()).signatures[0]
    with pytest.raises(VerificationError):
        open_checkpoint(Note(body, (genuine, forged)).render(), VKEY)
    unknown = NoteSignature("someone.else", b"1234", b"whatever")
    assert open_checkpoint(Note(body, (unknown, genuine)).render(), VKEY).tree_size == 11
    foreign = Checkpoint("another-log", 1, bytes(32)).body()
    named = VerifierKey(ORIGIN, LOG_SIGNATURE, LOG_KEY.public_key)
    note = Note(foreign, (NoteSignature(ORIGIN, named.key_id, LOG_KEY.sign(foreign)),)).render()
    with pytest.raises(VerificationError, match=r"checkpoint\.wrong_origin"):
        open_checkpoint(note, VKEY)


def test_a_cosignature_is_for_one_text_one_time_and_one_witness() -> None:
    line = cosign(signed(), WITNESS_KEY, "witness.example/w1", timestamp=1_800_000_000)
    assert verify_cosignature(signed() + line.encode(), WITNESS) == 1_800_000_000
    with pytest.raises(VerificationError, match=r"cosignature\.missing"):
        verify_cosignature(signed(), WITNESS)
    with pytest.raises(VerificationError, match=r"cosignature\.invalid"):
        verify_cosignature(signed(10) + line.encode(), WITNESS)
    parsed = NoteSignature.parse(line)
    later = NoteSignature(parsed.name, parsed.key_id, (1_800_000_001).to_bytes(8, "big") + parsed.signature[8:])
    with pytest.raises(VerificationError, match=r"cosignature\.invalid"):
        verify_cosignature(signed() + later.render().encode(), WITNESS)
    short = NoteSignature(parsed.name, parsed.key_id, parsed.signature[:-1])
    with pytest.raises(VerificationError, match=r"cosignature\.invalid"):
        verify_cosignature(signed() + short.render().encode(), WITNESS)
    with pytest.raises(InvalidInputError, match=r"verifier_key\.wrong_algorithm"):
        verify_cosignature(signed(), VKEY)
    with pytest.raises(InvalidInputError, match=r"verifier_key\.wrong_algorithm"):
        open_checkpoint(signed(), WITNESS)


def test_a_quorum_counts_keys_not_lines() -> None:
    names = ["w1", "w2"]
    lines = [cosign(signed(), WITNESS_KEY, name, timestamp=5) for name in names]
    note = add_signatures(signed(), lines)
    witnesses = [witness_key(name, WITNESS_KEY.public_key) for name in names]
    assert open_checkpoint(note, VKEY, witnesses=witnesses, quorum=1).tree_size == 11
    with pytest.raises(VerificationError) as refusal:
        open_checkpoint(note, VKEY, witnesses=witnesses, quorum=2)
    assert refusal.value.details == {"cosignatures": 1, "quorum": 2}


def test_a_newer_line_of_the_same_key_replaces_the_older() -> None:
    first, second = (cosign(signed(), WITNESS_KEY, "w", timestamp=time) for time in (1, 2))
    note = add_signatures(add_signatures(signed(), [first]), [second])
    assert note == signed() + second.encode()


def test_a_later_checkpoint_extends_an_earlier_one() -> None:
    old, new = Checkpoint(ORIGIN, 5, log().root(5)), Checkpoint(ORIGIN, 11, log().root())
    new.verify_extends(old, log().prove_consistency(5, 11))
    with pytest.raises(VerificationError):
        new.verify_extends(Checkpoint(ORIGIN, 5, bytes(32)), log().prove_consistency(5, 11))
    with pytest.raises(VerificationError, match=r"checkpoint\.wrong_origin"):
        new.verify_extends(Checkpoint("other", 5, log().root(5)), log().prove_consistency(5, 11))


def proof(index: int = 6, extra: bytes | None = b"extra") -> TlogProof:
    return TlogProof(extra, index, tuple(log().prove_inclusion(index, 11)), signed())


@pytest.mark.parametrize("extra", [None, b"\0", b"any bytes"])
def test_a_proof_text_reads_back_and_verifies(extra: bytes | None) -> None:
    for index in range(11):
        text = proof(index, extra).render()
        assert TlogProof.parse(text) == proof(index, extra)
        assert TlogProof.parse(text).verify(LEAVES[index], VKEY).tree_size == 11
        with pytest.raises(VerificationError, match=r"proof\.root_mismatch"):
            proof(index).verify(LEAVES[index - 1], VKEY)


def test_a_one_leaf_log_needs_no_hash() -> None:
    single = Checkpoint(ORIGIN, 1, log_leaf_hash(b"only"))
    text = TlogProof(None, 0, (), sign_checkpoint(single, LOG_KEY)).render()
    assert text.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + ORIGIN.encode())
    assert TlogProof.parse(text).verify(b"only", VKEY) == single


def test_every_truncation_and_every_flipped_bit_of_a_proof_is_refused() -> None:
    text = proof(extra=None).render()
    broken = [text[:cut] for cut in range(len(text))]
    broken += [text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :] for at in range(len(text)) for bit in range(8)]
    for each in broken:
        with pytest.raises((InvalidInputError, VerificationError)):
            TlogProof.parse(each).verify(LEAVES[6], VKEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"index 6", b"index 06"),
        (b"index 6", b"Index 6"),
        (b"index 6\n", b""),
        (b"index 6", b"index 6 "),
        (b"index 6", b"index"),
        (b"extra ", b"extra  "),
        (b"extra ZXh0cmE=", b"extra "),
        (b"extra ZXh0cmE=\nindex 6", b"index 6\nextra ZXh0cmE="),
        (b"@v1\n", b"@v2\n"),
        (b"@v1\n", b"@v1\r\n"),
        (b"\n\nclinic", b"\n\n\nclinic"),
    ],
)
def test_another_spelling_of_a_proof_is_refused(old: bytes, new: bytes) -> None:
    text = proof().render()
    assert text.count(old) == 1
    with pytest.raises(InvalidInputError):
        TlogProof.parse(text.replace(old, new))


def test_limits_are_checked_before_parsing() -> None:
    with pytest.raises(InvalidInputError, match=r"note\.too_large"):
        Note.parse(bytes(2**20))
    with pytest.raises(InvalidInputError, match=r"tlog_proof\.too_large"):
        TlogProof.parse(bytes(2**20 + 1))
    line = cosign(signed(), WITNESS_KEY, "w", timestamp=1)
    with pytest.raises(InvalidInputError, match=r"note\.too_many_signatures"):
        Note.parse(signed() + line.encode() * 64)
    assert len(Note.parse(signed() + line.encode() * 63).signatures) == 64


def test_the_example_of_the_page_is_what_we_write() -> None:
    pinned = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text("utf-8"))["evidence_text"]
    made = Log()
    made.append([b"first", b"second", b"third"])
    origin, key, witness = "clinic-north-" + "0" * 32, *(SigningKey.from_seed(bytes([byte]) * 32) for byte in (1, 2))
    note = sign_checkpoint(Checkpoint(origin, 3, made.root()), key)
    note += cosign(note, witness, "witness.example/w1", timestamp=1_800_000_000).encode()
    text = TlogProof(b"extra", 1, tuple(made.prove_inclusion(1, 3)), note).render()
    assert pinned["text"] == text.decode()
    assert pinned["verifier_key"] == verifier_key(origin, key.public_key)
    assert pinned["witness_key"] == witness_key("witness.example/w1", witness.public_key)
    page = (ROOT / "docs/formats.md").read_text("utf-8")
    for shown in pinned.values():
        assert shown in page


def test_a_repr_shows_no_extra_data() -> None:
    assert "opening" not in repr(TlogProof(b"opening key", 0, (), signed()))
