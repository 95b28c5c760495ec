"""Assembling blocks from Python: the leaves of the reference, packs as signed, nothing changed by a refusal."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import blake3
import numpy as np
import pytest
from ehrfast import _core
from ehrfast._core import (
    Block,
    ClassKey,
    Log,
    SealedPack,
    SigningKey,
    StateView,
    Transaction,
    Trie,
    WriteSet,
    seal_records,
)
from ehrfast.errors import ConflictError, InvalidInputError

from tests.reference import block as reference
from tests.reference import log as reference_log
from tests.reference import trie as reference_trie

PINNED = tomllib.loads((Path(__file__).parents[1] / "vectors/formats.toml").read_text())["block_leaf"]
GENESIS = b"genesis"
CHAIN = f"main-{blake3.blake3(GENESIS).hexdigest(16)}"
KEY = SigningKey.from_seed(b"\x01" * 32)
PROPOSER = b"\x09" * 32


def written(**values: int) -> WriteSet:
    view = StateView(None)
    view.begin(b"\x05" * 16)
    for key, value in values.items():
        view.put("toy", (key,), value)
    view.accept()
    return view.write_set()


def signed(salt: int, packs: list[SealedPack] | None = None) -> Transaction:
    attachments = [(pack.root, pack.wraps_root) for pack in packs or []]
    return _core.sign_transaction(
        KEY, CHAIN, "toy", "put", {}, lane=2, expires=1, salt=bytes([salt]) * 16, attachments=attachments
    )


def founded() -> tuple[Log, Block, Trie]:
    log = Log()
    block, trie = _core.assemble_genesis(
        log, Trie(), GENESIS, written(a=1), chain_id=CHAIN, time_ms=1000, proposer=PROPOSER
    )
    return log, block, trie


def assemble(
    log: Log,
    trie: Trie,
    entries: list[tuple[Transaction | bytes, bytes]],
    packs: list[SealedPack] | None = None,
    chain_id: str = CHAIN,
    proposer: bytes = PROPOSER,
) -> tuple[Block, Trie]:
    return _core.assemble(
        log,
        trie,
        chain_id=chain_id,
        height=1,
        engine_height=7,
        time_ms=2000,
        proposer=proposer,
        entries=entries,
        writes=written(b=2),
        packs=packs or [],
    )


def test_blocks_have_the_leaves_of_the_reference() -> None:
    log, first, trie = founded()
    state = {path: stored for path, stored in first.write_set.items() if stored is not None}
    head = reference.BlockLeaf(CHAIN, 0, 0, 1000, 0, 1, reference_log.root([]), reference_trie.root(state), PROPOSER)
    leaves = [reference.genesis_leaf(GENESIS), head.encode()]
    assert first.leaves == leaves
    assert (first.transactions, first.receipts) == ([], [])

    one, two, timer = signed(1), signed(2), b"\x07" * 32
    block, after = assemble(log, trie, [(one, b"r1"), (timer, b"r2"), (two, b"r3")])
    state |= {path: stored for path, stored in block.write_set.items() if stored is not None}
    root = reference_log.root(leaves)
    head = reference.BlockLeaf(CHAIN, 1, 7, 2000, 2, 3, root, reference_trie.root(state), PROPOSER)
    leaves += [
        reference.transaction_leaf(one.id, one.received, b"r1"),
        reference.timer_leaf(timer, b"r2"),
        reference.transaction_leaf(two.id, two.received, b"r3"),
        head.encode(),
    ]
    assert block.leaves == leaves[2:]
    assert block.leaf == leaves[-1]
    assert block.leaf_hash == _core.log_leaf_hash(leaves[-1])
    assert block.log_root == log.root() == reference_log.root(leaves)
    assert block.tree_size == log.tree_size == 6
    assert block.state_root == after.root
    assert block.transactions == [one.received, two.received]
    assert block.receipts == [b"r1", b"r2", b"r3"]
    assert _core.transaction_leaf(one.id, one.received_digest, b"r1") == leaves[2]
    assert _core.timer_leaf(timer, b"r2") == leaves[3]

    decoded = _core.decode_block_leaf(block.leaf)
    for leaf in (decoded, block):
        fields = (leaf.chain_id, leaf.height, leaf.engine_height, leaf.time_ms, leaf.first_index, leaf.leaf_count)
        assert fields == (CHAIN, 1, 7, 2000, 2, 3)
        assert (leaf.previous_root, leaf.state_root, leaf.proposer) == (root, after.root, PROPOSER)
        assert leaf.tree_size == 6
    log.truncate(block.first_index)
    assert assemble(log, trie, [(one, b"r1"), (timer, b"r2"), (two, b"r3")])[0].log_root == block.log_root


def test_packs_are_those_the_transactions_signed_for() -> None:
    key = ClassKey.derive(bytes(32), bytes(16), bytes(16), "clinical", bytes(16))
    span = np.array([[0, 2]], dtype=np.uint64)
    first, second = (seal_records("main", b"{}", span, [(bytes([n]) * 16, 1, "clinical", [key])]) for n in (1, 2))
    entries: list[tuple[Transaction | bytes, bytes]] = [(signed(1, [first]), b""), (signed(2, [second]), b"")]
    for packs, position in [([], 0), ([first], 1), ([second, first], 0), ([first, second, second], 2)]:
        log, _, trie = founded()
        with pytest.raises(InvalidInputError) as caught:
            assemble(log, trie, entries, packs)
        assert caught.value.code == "pack.root_mismatch"
        assert caught.value.details["position"] == position
        assert log.tree_size == 2
    log, _, trie = founded()
    assert assemble(log, trie, entries, [first, second])[0].leaf_count == 2


def test_refusals_are_named_and_change_nothing() -> None:
    log, _, trie = founded()
    entry: tuple[Transaction | bytes, bytes] = (signed(1), b"")
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: assemble(log, trie, []), "block.no_entries"),
        (lambda: assemble(log, trie, [entry], chain_id="main"), "block.chain_id"),
        (lambda: assemble(log, trie, [entry], proposer=b""), "block.proposer_length"),
        (lambda: assemble(log, trie, [(b"short", b"")]), "timer.wrong_length"),
        (lambda: _core.decode_block_leaf(b""), "block.other_leaf"),
        (lambda: _core.decode_block_leaf(b"\x02"), "cbor.truncated"),
    ]
    for call, code in refused:
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.code == code
        assert log.tree_size == 2
    with pytest.raises(ConflictError, match=r"block\.log_not_empty"):
        _core.assemble_genesis(log, trie, GENESIS, written(), chain_id=CHAIN, time_ms=1, proposer=PROPOSER)
    with pytest.raises(InvalidInputError, match=r"block\.chain_id_mismatch"):
        _core.assemble_genesis(Log(), Trie(), b"x", written(), chain_id=CHAIN, time_ms=1, proposer=PROPOSER)


def test_generated_block_leaves_are_pinned() -> None:
    encodings = blake3.blake3()
    for number in range(PINNED["count"]):
        expected = reference.generated(number)
        leaf = expected.encode()
        encodings.update(len(leaf).to_bytes(4, "big") + leaf)
        decoded = _core.decode_block_leaf(leaf)
        assert all(getattr(decoded, name) == getattr(expected, name) for name in expected.__slots__)
    assert encodings.hexdigest() == PINNED["encodings"]
    assert reference.generated(0).encode().hex() == PINNED["example"]
