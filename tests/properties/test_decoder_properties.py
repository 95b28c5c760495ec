"""The decoders written in Python over random and nearly sound bytes: refused by name, or written again as they were."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from ehrfast._core import SigningKey, cbor_encode, cose_sign
from ehrfast.errors import EhrfastError
from ehrfast.model.checkpoint import Checkpoint, Note, NoteSignature, VerifierKey, open_checkpoint, verify_cosignature
from ehrfast.model.genesis import GENESIS_AAD, Genesis, Organisation, open_genesis, sign_genesis
from ehrfast.model.proof import build_evidence, verify
from ehrfast.model.receipt import Receipt
from ehrfast.model.tlog_proof import TlogProof
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
PINNED = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text())["evidence_text"]
TEXT = PINNED["text"].encode()
PROOF = TlogProof.parse(TEXT)
NOTE = PROOF.checkpoint
KEY = SigningKey.from_seed(bytes(32))
FOUNDER = Organisation(b"\x01" * 16, ((b"\x02" * 16, KEY.public_key),), 1)
GENESIS = Genesis("clinic", 1, "solo", (FOUNDER,), ((KEY.public_key,), 1), bytes(32), 11, (("work", 5),))
RECEIPT = Receipt(bytes(32), 1, 2, 0, 3, 4, (("records", "put", (b"id", 1)),))
EVIDENCE = build_evidence(block_leaf=b"\x02", index=1, inclusion=[], checkpoint=NOTE, rows=[], opening_key=None).text

Read = Callable[[bytes], bytes | None]


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def opened_checkpoint(data: bytes) -> None:
    open_checkpoint(data, PINNED["verifier_key"], witnesses=[PINNED["witness_key"]], quorum=1)


def checked(data: bytes) -> None:
    verify(data, key=PINNED["verifier_key"])


# What reads, what it would write again (None where bytes outside its form may stand beside it), and sound bytes.
DECODERS: dict[str, tuple[Read, bytes]] = {
    "receipt": (lambda data: Receipt.decode(data).encode(), RECEIPT.encode()),
    "genesis": (lambda data: Genesis.decode(data).encode(), GENESIS.encode()),
    "signed genesis": (lambda data: sign_genesis(open_genesis(data), [KEY]), sign_genesis(GENESIS, [KEY])),
    "tlog proof": (lambda data: TlogProof.parse(data).render(), TEXT),
    "note": (lambda data: Note.parse(data).render(), NOTE),
    "note signature": (
        lambda data: NoteSignature.parse(text_of(data)).render().encode(),
        NOTE.split(b"\n\n")[1].splitlines(keepends=True)[0],
    ),
    "checkpoint": (lambda data: Checkpoint.parse(data).body(), NOTE.split(b"\n\n")[0] + b"\n"),
    "verifier key": (lambda data: VerifierKey.decode(text_of(data)).encode().encode(), PINNED["verifier_key"].encode()),
    "opened checkpoint": (opened_checkpoint, NOTE),
    "cosignature": (lambda data: bytes(0 * verify_cosignature(data, PINNED["witness_key"])) or None, NOTE),
    "evidence": (checked, EVIDENCE),
}


def hold(name: str, data: bytes) -> bool:
    """Whether it was read; any other error, a refusal without a name, or other bytes fail the test."""
    try:
        written = DECODERS[name][0](data)
    except EhrfastError as refused:
        code = refused.code
    else:
        assert written is None or written == data
        return True
    assert "." in code
    return False


@pytest.mark.parametrize("name", DECODERS)
def test_sound_bytes_are_read(name: str) -> None:
    assert hold(name, DECODERS[name][1]) == (name != "evidence")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=200))
@example("genesis", b"")
def test_random_bytes_are_refused_by_name(name: str, data: bytes) -> None:
    hold(name, data)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.integers(0), st.integers(0, 5), st.binary(min_size=1, max_size=3))
@example("verifier key", 0, 0, b"\x80")  # found: a name that is no UTF-8
def test_nearly_sound_bytes_are_refused_by_name(name: str, place: int, change: int, more: bytes) -> None:
    data = DECODERS[name][1]
    at = place % (len(data) + 1)
    changed = {
        0: data[:at] + bytes(byte ^ more[0] for byte in data[at : at + 1]) + data[at + 1 :],
        1: data[:at],
        2: data[:at] + more + data[at:],
        3: data[:at] + data[at + len(more) :],
        4: data[:at] + data[at // 2 : at] + data[at:],
        5: data.replace(b"\n", b"\r\n", 1) if at % 2 else data + b"\n",
    }[change]
    hold(name, changed)


items = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=33)
    | st.text("abcé-", max_size=9),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.integers(-3, 3), inner, max_size=3),
    max_leaves=12,
)


def replaced(value: object, path: list[int], new: object) -> object:
    """A tuple with the item at a path replaced; the path wraps around, and ends where there is no tuple."""
    if not path or not isinstance(value, tuple) or not value:
        return new
    at = path[0] % len(value)
    return (*value[:at], replaced(value[at], path[1:], new), *value[at + 1 :])


def encoded(value: object) -> bytes:
    """Skips what our CBOR cannot say, such as too many levels."""
    try:
        return cbor_encode(value)
    except EhrfastError:
        assume(False)
        raise


SHAPES: dict[str, object] = {
    "genesis": (
        1,
        "clinic",
        1,
        "solo",
        ((bytes(16), ((bytes(16), bytes(32)),), 1),),
        ((bytes(32),), 1),
        bytes(32),
        11,
        (("work", 5),),
        None,
    ),
    "receipt": (bytes(32), 1, 2, 0, 3, 4, (("records", "put", (b"id", 1)),)),
}


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.lists(st.integers(0, 9), min_size=1, max_size=5), items)
@example("genesis", [4], None)  # found: organisations that are no list
@example("genesis", [4, 0], (b"", ()))  # found: an organisation of two fields
def test_other_types_in_their_places_are_refused_by_name(name: str, path: list[int], new: object) -> None:
    data = encoded(replaced(SHAPES[name], path, new))
    hold(name, data)
    if name == "genesis":
        hold("signed genesis", cose_sign([KEY], data, GENESIS_AAD))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), items)
def test_other_types_in_evidence_are_refused_by_name(path: list[int], new: object) -> None:
    extra = replaced((1, b"\x02", (("records", (bytes(16), 1), bytes(20), b"\x85"),), None), path, new)
    hold("evidence", TlogProof(encoded(extra), PROOF.index, PROOF.hashes, PROOF.checkpoint).render())
