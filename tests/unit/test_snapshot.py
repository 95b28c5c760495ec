"""Snapshots against their readable twin, and a state database filled from one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import blake3
import pytest
from ehrfast import Node
from ehrfast._core import (
    Log,
    SnapshotVerifier,
    StateDb,
    Trie,
    load_transactions,
    open_part,
    seal_part,
    snapshot_head,
    snapshot_leaves,
    snapshot_state,
    verify_snapshot_state,
)
from ehrfast.chain.snapshot import load_snapshot, load_transaction_places
from ehrfast.errors import ConflictError, CorruptionError, VerificationError
from ehrfast.model.checkpoint import Checkpoint

from tests.conftest import code_of
from tests.reference import snapshot as twin

PINNED = tomllib.loads((Path(__file__).parents[2] / "tests/vectors/formats.toml").read_text())["snapshot"]


def test_the_twin_gives_the_pinned_parts_and_the_core_takes_them() -> None:
    parts, state, leaves = twin.generated()
    framed = b"".join(len(part).to_bytes(4) + part for part in parts)
    assert blake3.blake3(framed).hexdigest() == PINNED["encodings"]
    log = Log()
    log.append(leaves)
    assert snapshot_head("test-" + "0" * 32, 3, 40, 10, log.frontier(10)) == parts[0]
    assert snapshot_leaves(25, leaves[25:]) == parts[2]
    verifier = SnapshotVerifier(parts[0], "test-" + "0" * 32, 40, log.root())
    into = StateDb.in_memory()
    assert verifier.block is None
    assert verifier.take_leaves(parts[1]) == leaves[10:25]
    with pytest.raises(VerificationError) as early:
        verifier.take_state(parts[3], into)
    assert code_of(early) == "snapshot.not_next"
    verifier.take_leaves(parts[2])
    assert verifier.block is not None
    root = verifier.block.state_root
    with pytest.raises(VerificationError):
        verifier.finish(into)
    assert sum(verifier.take_state(part, into) for part in parts[3:]) == 50
    assert into.applied_height is None
    verifier.finish(into)
    assert into.applied_height == 3
    assert {path: into.get(path) for path in state} == state
    trie = Trie.from_state(into)
    assert trie.root == root
    start: bytes | None = bytes(32)
    for part in parts[3:]:
        assert start is not None
        chunk, start = snapshot_state(into, trie, start, 600)
        assert chunk == part
        assert verify_snapshot_state(root, part)[2] == start
        with pytest.raises(VerificationError) as wrong:
            verify_snapshot_state(bytes(32), part)
        assert code_of(wrong) == "snapshot.wrong_state"
    with pytest.raises(ConflictError) as filled:
        load_transactions(into, 4, 40, leaves)
    assert code_of(filled) == "state.not_next"


def test_a_snapshot_of_a_node_fills_a_state_and_is_refused_under_another_checkpoint(
    tmp_path: Path, patients: Path
) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        node.import_fhir(patients)
        (offer,) = node.chain.snapshot()
        assert (offer.height, offer.state_root) == (node.chain.published.height, node.chain.published.state_root)
        with pytest.raises(ConflictError) as moving:
            next(node.chain.snapshot_parts())
        assert code_of(moving) == "snapshot.moving"
    with Node.open(tmp_path / "clinic.ehr", read_only=True) as node:
        chain = node.chain
        parts = list(chain.snapshot_parts())
        assert {kind for kind, _ in parts} == {"head", "leaves", "state"}
        published = chain.published
        checkpoint = Checkpoint(chain.chain_id, published.tree_size, published.log_root)
        into = StateDb.in_memory()
        load_transaction_places(into, chain.segments, published.height)
        assert load_snapshot(parts, checkpoint, into=into) == published.height
        assert Trie.from_state(into).root == published.state_root
        receipt = chain.read_block(2).calls[0][1]
        assert into.find_transaction(receipt.id) == (2, receipt.index)
        wrong = Checkpoint(chain.chain_id, published.tree_size, bytes(32))
        with pytest.raises(VerificationError) as refused:
            load_snapshot(parts, wrong, into=StateDb.in_memory())
        assert code_of(refused) == "snapshot.root_mismatch"
        empty = StateDb.in_memory()
        with pytest.raises(VerificationError):
            load_snapshot(parts[:-1], checkpoint, into=empty)
        assert empty.applied_height is None
        with pytest.raises(CorruptionError):
            load_snapshot(parts[1:], checkpoint, into=StateDb.in_memory())


def test_a_part_opens_at_its_own_place_only() -> None:
    sealed = seal_part(bytes(32), b"place", b"content")
    assert open_part(bytes(32), b"place", sealed) == b"content"
    for key, place, data in (
        (bytes(31) + b"\1", b"place", sealed),
        (bytes(32), b"other", sealed),
        (bytes(32), b"place", sealed[:-1]),
        (bytes(32), b"place", b""),
    ):
        with pytest.raises(CorruptionError) as refused:
            open_part(key, place, data)
        assert code_of(refused) == "backup.part_damaged"
