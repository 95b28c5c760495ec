"""Recovery: from the files of a chain to the state it was in. The log is the truth; everything else is rebuilt from it.

Refuses a log shorter than a known checkpoint or inconsistent with it, and a state root that does not recompute.
A state database that is behind is caught up by replaying write sets; one that is ahead or different is thrown away.
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
from ehrfast.chain.publish import Published, publish
from ehrfast.chain.replay import WINDOW_MS, ReplayWindow
from ehrfast.chain.state_key import FOLDER, draw, segment_mark, state_key
from ehrfast.contracts.contract import BlockContext
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import ConflictError, CorruptionError
from ehrfast.model.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint, verifier_key
from ehrfast.model.genesis import Genesis


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
    published = publish(block, trie, state=state, signer=signer, slots=slots)
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
) -> Recovered:
    """Opens every file of a chain and brings them to one height.

    Args:
        cosigned: checkpoints that witnesses have cosigned; the log must extend each of them.

    Raises:
        CorruptionError: ``log.shorter_than_checkpoint``, ``log.not_the_checkpoint``, ``log.broken_link``,
        ``state.wrong_root``.
        ConflictError: ``contract.set_changed``, ``python.other_minor``.
    """
    _require_same_rules(genesis, runtime)
    slots = CheckpointFile.open(str(folder / "checkpoint"), read_only=read_only)
    note = slots.read()
    known = None if note is None else open_checkpoint(note, verifier_key(genesis.chain_id, signer.public_key))
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
    log, window, last = _read_log(segments, genesis, segments.height, progress)
    for checkpoint in (known, *cosigned):
        _require_checkpoint(log, checkpoint)
    state = _open_state(folder, genesis, keys, read_only=read_only)
    trie = _bring_up_state(state, segments, segments.height)
    head = head_of(last)
    root = log.root()
    if note is None or known_size < log.tree_size:
        note = sign_checkpoint(Checkpoint(genesis.chain_id, log.tree_size, root), signer)
        if not read_only:
            slots.write(note, sync=True)
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


def _read_log(
    segments: SegmentLog, genesis: Genesis, height: int, progress: Callable[[int, int], None] | None
) -> tuple[Log, ReplayWindow, Frame]:
    log, window = Log(), ReplayWindow()
    last = segments.read(height)
    oldest_seen = head_of(last).time_ms - WINDOW_MS
    previous_root = log.root()
    for number in range(height + 1):
        frame = last if number == height else segments.read(number)
        head = head_of(frame)
        linked = head.first_index == log.tree_size and head.previous_root == previous_root and head.height == number
        if not linked or head.chain_id != genesis.chain_id:
            raise CorruptionError("log.broken_link", {"height": number})
        leaves = frame.leaves
        log.append(leaves)
        previous_root = log.root()
        if head.time_ms >= oldest_seen:
            window.add((leaf[1:33] for leaf in leaves if leaf[:1] == b"\x01"), head.time_ms)
        if progress is not None:
            progress(number + 1, height + 1)
    if log.leaf_hash(0) != _genesis_leaf_hash(genesis):
        raise CorruptionError("log.other_genesis")
    return log, window, last


def _genesis_leaf_hash(genesis: Genesis) -> bytes:
    return log_leaf_hash(b"\x00" + blake3_digest(genesis.encode()))


def _require_checkpoint(log: Log, known: Checkpoint | None) -> None:
    if known is None:
        return
    if known.tree_size > log.tree_size:
        raise CorruptionError("log.shorter_than_checkpoint", {"known": known.tree_size, "found": log.tree_size})
    if log.root(known.tree_size) != known.root:
        raise CorruptionError("log.not_the_checkpoint", {"tree_size": known.tree_size})


def _bring_up_state(state: StateDb, segments: SegmentLog, height: int) -> Trie:
    """Catches the state database up with the log, or rebuilds it; every replayed write set must reproduce its root."""
    trie = _trie_at_applied(state, segments, height)
    if trie is None:
        state.clear()
        trie = Trie()
    first = 0 if state.applied_height is None else state.applied_height + 1
    for number in range(first, height + 1):
        frame = segments.read(number)
        trie = trie.update(frame.write_set)
        if trie.root != head_of(frame).state_root:
            raise CorruptionError("state.wrong_root", {"height": number})
        state.apply_frame(frame)
    return trie


def _trie_at_applied(state: StateDb, segments: SegmentLog, height: int) -> Trie | None:
    applied = state.applied_height
    if applied is None or applied > height:
        return None
    head_frame = segments.read(applied)
    if head_frame.leaf_hash != state.applied_leaf_hash:
        return None
    try:
        trie = Trie.from_state(state)
    except CorruptionError:
        return None
    return trie if trie.root == head_of(head_frame).state_root else None
