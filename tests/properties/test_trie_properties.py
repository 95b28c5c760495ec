"""The state trie against its definition: roots, proofs of presence and absence, and every altered proof refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

import blake3
import pytest
from ehrfast._core import Trie, WriteSet, verify_state_proof
from ehrfast.errors import InvalidInputError, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import trie as twin
from tests.reference.cbor import Refused, encode

PINNED = tomllib.loads((Path(__file__).parents[1] / "vectors/formats.toml").read_text())
# Paths agree on long prefixes, or on none.
PATHS = st.builds(
    lambda base, at, again: twin.flipped(twin.flipped(base, at), again),
    st.sampled_from([b"\x00" * 32, b"\xff" * 32, *(blake3.blake3(bytes([n])).digest() for n in range(60))]),
    st.sampled_from([0, 1, 7, 8, 100, 254, 255]),
    st.sampled_from([0, 3, 9, 101, 255]),
)
REFUSED = (twin.Refused, Refused, UnicodeDecodeError)
STORED = st.binary(min_size=17, max_size=20)
STATES = st.dictionaries(PATHS, STORED, max_size=80)


def write_set(writes: dict[bytes, bytes] | dict[bytes, None] | dict[bytes, bytes | None]) -> WriteSet:
    return WriteSet.decode(encode((1, sorted(writes.items()))))


def trie_of(state: dict[bytes, bytes]) -> Trie:
    return Trie().update(write_set(state))


@given(STATES, st.dictionaries(PATHS, st.none() | STORED, max_size=80), st.lists(PATHS, max_size=5))
@settings(deadline=None)
def test_versions_equal_the_definition(
    state: dict[bytes, bytes], writes: dict[bytes, bytes | None], asked: list[bytes]
) -> None:
    first = trie_of(state)
    second = first.update(write_set(writes))
    after = {path: stored for path, stored in {**state, **writes}.items() if stored is not None}
    for trie, held in ((second, after), (first, state)):
        assert trie.root == twin.root(held)
        assert len(trie) == len(held)
        for path in [*asked, *list(held)[:5]]:
            proof = trie.prove(path)
            assert proof == twin.prove(held, path).encode()
            verify_state_proof(trie.root, path, held.get(path), proof)
            twin.verify(trie.root, path, held.get(path), proof)


def test_generated_encodings_are_pinned() -> None:
    state, absent = twin.generated()
    trie, pinned = trie_of(state), PINNED["state_trie"]
    assert trie.root.hex() == twin.root(state).hex() == pinned["root"]
    assert digest(trie.prove(path) for path in [*sorted(state), *absent]) == pinned["proofs"]
    assert digest(twin.prove(state, path).encode() for path in [*sorted(state), *absent]) == pinned["proofs"]
    three = trie_of(dict(sorted(state.items())[:3]))
    assert three.prove(absent[0]).hex() == pinned["example"]


def test_generated_write_sets_are_pinned() -> None:
    pinned = PINNED["write_set"]
    encodings = [encode((1, twin.generated_writes(number))) for number in range(pinned["count"])]
    assert digest(WriteSet.decode(encoding).encode() for encoding in encodings) == pinned["encodings"]
    assert encodings[2].hex() == pinned["example"]


def digest(encodings: Iterable[bytes]) -> str:
    hasher = blake3.blake3()
    for encoding in encodings:
        hasher.update(len(encoding).to_bytes(4, "big") + encoding)
    return hasher.hexdigest()


@given(STATES.filter(bool), PATHS, st.integers(0, 2**20))
@settings(deadline=None)
def test_every_altered_proof_is_refused(state: dict[bytes, bytes], path: bytes, at: int) -> None:
    trie = trie_of(state)
    proof = trie.prove(path)
    altered = bytearray(proof)
    altered[at // 8 % len(proof)] ^= 1 << at % 8
    for claim in (state.get(path), None, b"\x00" * 17):
        with pytest.raises(VerificationError):
            verify_state_proof(trie.root, path, claim, bytes(altered))
        with pytest.raises(REFUSED):
            twin.verify(trie.root, path, claim, bytes(altered))
        with pytest.raises(VerificationError):
            verify_state_proof(trie.root, path, claim, proof[: at % len(proof)])


def test_what_is_present_is_never_absent() -> None:
    state, absent = twin.generated()
    trie = trie_of(state)
    held = min(state)
    proof = trie.prove(held)
    verify_state_proof(trie.root, held, state[held], proof)
    for stored, given_proof, code in [
        (None, proof, "proof.opposite"),
        (state[held] + b"\x00", proof, "proof.root_mismatch"),
        (None, trie.prove(absent[0]), "proof."),
        (state[held], trie.prove(absent[0]), "proof.opposite"),
    ]:
        with pytest.raises(VerificationError) as caught:
            verify_state_proof(trie.root, held, stored, given_proof)
        assert caught.value.code.startswith(code)


def test_lengths_are_named() -> None:
    trie = Trie()
    assert trie.root == bytes(32)
    verify_state_proof(bytes(32), bytes(32), None, trie.prove(bytes(32)))
    with pytest.raises(InvalidInputError, match=r"path\.wrong_length"):
        trie.prove(b"short")
    for root, path in ((b"", bytes(32)), (bytes(32), bytes(31))):
        with pytest.raises(VerificationError, match=r"proof\.hash_length"):
            verify_state_proof(root, path, None, trie.prove(bytes(32)))
    with pytest.raises(VerificationError, match=r"proof\.malformed"):
        verify_state_proof(bytes(32), bytes(32), None, b"")
