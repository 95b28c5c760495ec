"""Recovery: from the files of a chain to the state it was in. The log is the truth; everything else is rebuilt from it.

Refuses a log shorter than a known checkpoint or inconsistent with it, and a state root that does not recompute.
The state database, with the top of the trie and the tiles of the log beside it, is caught up by replaying write sets;
what is ahead, different or damaged is thrown away. A clean open reads the last blocks only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ehrfast._core import (
    BlockLeaf,
    CheckpointFile,
    Frame,
    KeyStore,
    Log,
    SegmentLog,
    SigningKey,
    StateDb,
    StateView,
    Trie,
    assemble_genesis,
    blake3_digest,
    decode_block_leaf,
    log_leaf_hash,
)
from ehrfast.chain.key_history import require_founder
from ehrfast.chain.publish import Published, publish
from ehrfast.chain.replay import WINDOW_MS, ReplayWindow
from ehrfast.chain.state_key import FOLDER, draw, segment_mark, state_key
from ehrfast.contracts.contract import BlockContext
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import ConflictError, CorruptionError
from ehrfast.model.checkpoint import LOG_SIGNATURE, Checkpoint, Note, VerifierKey, sign_checkpoint
from ehrfast.model.genesis import Genesis
from ehrfast.model.key_history import KeyHistory


@dataclass(slots=True)
class Recovered:
    """The parts of an open chain."""

    segments: SegmentLog
    state: StateDb
    log: Log
    slots: CheckpointFile
    published: Published
    window: ReplayWindow


def create_log(
    folder: Path, signed_genesis: bytes, genesis: Genesis, *, keys: KeyStore, signer: SigningKey, runtime: Runtime
) -> None:
    """Writes the genesis file, block 0 and the first checkpoint (size 2)."""
    (folder / "genesis").write_bytes(signed_genesis)
    draw(keys, genesis.chain_id)
    view = StateView(None)
    runtime.genesis(view, BlockContext(genesis.chain_id, 0, genesis.time_ms), genesis)
    log, trie = Log(), Trie()
    block, trie = assemble_genesis(
        log,
        trie,
        genesis.encode(),
        view.write_set(),
        chain_id=genesis.chain_id,
        time_ms=genesis.time_ms,
        proposer=signer.public_key,
    )
    segments = SegmentLog.create(str(folder / "log"), genesis.chain_id, keys)
    segments.append(block, ())
    state = _open_state(folder, genesis, keys, read_only=False)
    slots = CheckpointFile.open(str(folder / "checkpoint"))
    published = publish(block, trie, log=log, state=state, signer=signer, slots=slots)
    slots.write(published.note, sync=True)
    state.close()
    segments.close()


def recover(
    folder: Path,
    genesis: Genesis,
    *,
    keys: KeyStore,
    signer: SigningKey,
    runtime: Runtime,
    read_only: bool,
    progress: Callable[[int, int], None] | None,
    cosigned: Sequence[Checkpoint] = (),
    history: KeyHistory | None = None,
) -> Recovered:
    """Opens every file of a chain and brings them to one height.

    Args:
        cosigned: checkpoints that witnesses have cosigned; the log must extend each of them.
        history: the keys the log has had, by default the signer's alone.

    Raises:
        CorruptionError: ``log.shorter_than_checkpoint``, ``log.not_the_checkpoint``, ``log.broken_link``,
        ``state.wrong_root``, ``keys.history_missing``.
        ConflictError: ``contract.set_changed``, ``python.other_minor``.
    """
    _require_same_rules(genesis, runtime)
    slots = CheckpointFile.open(str(folder / "checkpoint"), read_only=read_only)
    note = slots.read()
    current = VerifierKey(genesis.chain_id, LOG_SIGNATURE, signer.public_key)
    had = history or KeyHistory.of(current)
    known = None if note is None else had.open_checkpoint(note)
    known_size = 0 if known is None else known.tree_size
    segments = SegmentLog.open(
        str(folder / "log"),
        genesis.chain_id,
        keys,
        checkpoint_size=max(known_size, *(each.tree_size for each in cosigned), 0),
        read_only=read_only,
    )
    if segments.height is None:
        raise CorruptionError("log.empty", {"segment": str(folder.name)})
    if not read_only and (segments.last_segment_height or 0) <= segment_mark(keys, genesis.chain_id) > 0:
        segments.roll()
    state = _open_state(folder, genesis, keys, read_only=read_only)
    try:
        trie, log = state.restore(segments, _in_blocks(progress, segments.height + 1))
        if log.leaf_hash(0) != _genesis_leaf_hash(genesis):
            raise CorruptionError("log.other_genesis")
        require_founder(had, head_of(segments.read(0)).proposer)
        for checkpoint in (known, *cosigned):
            _require_checkpoint(log, checkpoint)
        last = segments.read(segments.height)
        head, root = head_of(last), log.root()
        if note is None or known_size < log.tree_size or not Note.parse(note).signatures_by(current):
            note = sign_checkpoint(Checkpoint(genesis.chain_id, log.tree_size, root), signer)
            if not read_only:
                slots.write(note, sync=True)
    except BaseException:
        state.close()
        segments.close()
        raise
    published = Published(
        chain_id=genesis.chain_id,
        height=head.height,
        engine_height=head.engine_height,
        tree_size=log.tree_size,
        time_ms=head.time_ms,
        log_root=root,
        state_root=head.state_root,
        block_leaf=last.leaves[-1],
        trie=trie,
        note=note,
    )
    window = ReplayWindow(state.known_transactions, head.time_ms + WINDOW_MS) if head.height else ReplayWindow()
    return Recovered(segments, state, log, slots, published, window)


def head_of(frame: Frame) -> BlockLeaf:
    """The decoded block leaf of a frame, its last leaf."""
    return decode_block_leaf(frame.leaves[-1])


def _require_same_rules(genesis: Genesis, runtime: Runtime) -> None:
    if genesis.python_minor != sys.version_info.minor and genesis.engine != "solo":
        raise ConflictError("python.other_minor", {"wanted": genesis.python_minor})


def _open_state(folder: Path, genesis: Genesis, keys: KeyStore, *, read_only: bool) -> StateDb:
    if read_only:
        return StateDb.in_memory()
    return _open_or_remake(folder / FOLDER, state_key(keys, genesis.chain_id))


def _open_or_remake(folder: Path, key: bytes) -> StateDb:
    """A database that is not what was written is thrown away: the log holds everything in it."""
    try:
        return StateDb.open(str(folder), key)
    except CorruptionError:
        StateDb.discard(str(folder))
        return StateDb.open(str(folder), key)


def _in_blocks(progress: Callable[[int, int], None] | None, blocks: int) -> Callable[[int, int], None] | None:
    """Whatever the steps of recovery are, the caller is told of blocks."""
    if progress is None:
        return None
    progress(0, blocks)
    return lambda done, total: progress(blocks * done // total, blocks)


def _genesis_leaf_hash(genesis: Genesis) -> bytes:
    return log_leaf_hash(b"\x00" + blake3_digest(genesis.encode()))


def _require_checkpoint(log: Log, known: Checkpoint | None) -> None:
    if known is None:
        return
    if known.tree_size > log.tree_size:
        raise CorruptionError("log.shorter_than_checkpoint", {"known": known.tree_size, "found": log.tree_size})
    if log.root(known.tree_size) != known.root:
        raise CorruptionError("log.not_the_checkpoint", {"tree_size": known.tree_size})
