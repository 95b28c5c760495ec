"""The log against its slow twin, at the sizes where trees change their shape."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from ehrfast import _core
from ehrfast.errors import InvalidInputError, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import log as twin

AROUND_POWERS = sorted({max(0, 2**k + d) for k in range(8) for d in (-1, 0, 1)})
LEAVES = [b"%d" % index * (index % 5) for index in range(300)]


def log_of(leaves: list[bytes]) -> _core.Log:
    log = _core.Log()
    log.append(leaves)
    return log


@pytest.mark.parametrize("tree_size", AROUND_POWERS)
def test_roots_frontiers_and_proofs_equal_the_twin(tree_size: int) -> None:
    leaves, log = LEAVES[:tree_size], log_of(LEAVES)
    root = log.root(tree_size)
    assert root == twin.root(leaves) == log_of(leaves).root()
    assert log.frontier(tree_size) == twin.frontier(leaves)
    for index in range(tree_size):
        proof = log.prove_inclusion(index, tree_size)
        assert proof == twin.prove_inclusion(index, leaves)
        _core.verify_inclusion(_core.log_leaf_hash(leaves[index]), index, tree_size, proof, root)
    for old_size in range(1, tree_size + 1):
        proof = log.prove_consistency(old_size, tree_size)
        assert proof == twin.prove_consistency(old_size, leaves)
        _core.verify_consistency(old_size, tree_size, log.root(old_size), root, proof)
    assert log.prove_consistency(0, tree_size) == []


@given(st.lists(st.binary(max_size=80), max_size=70), st.integers(0, 70))
def test_every_way_to_build_a_log_gives_the_same_one(leaves: list[bytes], keep: int) -> None:
    keep = min(keep, len(leaves))
    log = log_of(leaves)
    hashed = _core.Log()
    hashes = np.frombuffer(b"".join(map(twin.leaf_hash, leaves)), np.uint8).reshape(-1, 32)
    hashed.append_hashes(hashes[:keep])
    hashed.append_hashes(hashes[keep:].tobytes())
    offsets = np.cumsum([0, *map(len, leaves)], dtype=np.uint64)
    assert log.root() == hashed.root() == twin.root(leaves) == _core.log_root(b"".join(leaves), offsets)
    log.truncate(keep)
    assert log.tree_size == keep
    assert log.root() == twin.root(leaves[:keep])
    log.append(leaves[keep:])
    assert log.root() == twin.root(leaves)


@given(st.data())
def test_one_changed_claim_is_refused(data: st.DataObject) -> None:
    tree_size = data.draw(st.integers(2, 299))
    index = data.draw(st.integers(0, tree_size - 1))
    log = log_of(LEAVES)
    leaf_hash, root, proof = log.leaf_hash(index), log.root(tree_size), log.prove_inclusion(index, tree_size)
    for other in {index ^ 1, index + 1, tree_size} - {index}:
        with pytest.raises(VerificationError):
            _core.verify_inclusion(leaf_hash, other, tree_size, proof, root)
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    altered = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
    with pytest.raises(VerificationError, match=r"proof\.root_mismatch"):
        _core.verify_inclusion(leaf_hash, index, tree_size, [*proof[:at], altered, *proof[at + 1 :]], root)
    with pytest.raises(VerificationError, match=r"proof\.hash_length"):
        _core.verify_inclusion(leaf_hash, index, tree_size, [*proof[:at], altered[:31], *proof[at + 1 :]], root)
    with pytest.raises(VerificationError, match=r"proof\.wrong_length"):
        _core.verify_inclusion(leaf_hash, index, tree_size, proof[:-1], root)


@pytest.mark.parametrize("count", [n for n in AROUND_POWERS if n < 70])
def test_pack_roots_equal_the_twin(count: int) -> None:
    digests = [twin.leaf_hash(leaf) for leaf in LEAVES[:count]]
    assert _core.pack_root(b"".join(digests)) == twin.pack_root(digests)


@pytest.mark.parametrize(("tree_size", "tiles"), [(300, [(0, 0, 256), (0, 1, 44), (1, 0, 1)]), (7, [(0, 0, 7)])])
def test_tiles_equal_the_twin(tree_size: int, tiles: list[tuple[int, int, int]]) -> None:
    log = log_of(LEAVES[:tree_size])
    for level, index, width in tiles:
        assert log.tile(level, index, width) == twin.tile(level, index, width, LEAVES[:tree_size])
        with pytest.raises(InvalidInputError, match=r"log\.no_such_tile"):
            log.tile(level, index, width + 1)


def test_roots_are_the_pinned_ones() -> None:
    pinned = tomllib.loads((Path(__file__).parents[1] / "vectors/formats.toml").read_text("utf-8"))
    leaves = [b"\x01" + index.to_bytes(4, "big") * (index % 30) for index in range(pinned["log"]["tree_size"])]
    log = log_of(leaves)
    roots = blake3()
    for tree_size in range(len(leaves) + 1):
        roots.update(log.root(tree_size))
    assert roots.hexdigest() == pinned["log"]["roots"]
    packs, digests = blake3(), [blake3(leaf).digest() for leaf in leaves]
    for count in range(pinned["pack"]["count"] + 1):
        packs.update(_core.pack_root(b"".join(digests[:count])))
    assert packs.hexdigest() == pinned["pack"]["roots"]
