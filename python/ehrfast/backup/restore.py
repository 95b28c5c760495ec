"""Restoring a backup into an empty folder: every part checked, every root derived again, what was erased left out.

Before: a target and its root key. After: a folder that opens read-only, under keys of its own; the state is sealed
anew, new frames draw new salts, and nothing is signed before a checkpoint from outside has matched the head.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ehrfast._core import KeyStore, Log, SegmentLog, StateDb, cbor_decode
from ehrfast.backup.erased import Erasure, read_erasures
from ehrfast.backup.manifest import (
    ChainBackup,
    Manifest,
    Part,
    get_part,
    history_of,
    list_manifests,
    read_manifest,
    signers_of,
    unseal,
)
from ehrfast.backup.target import BackupTarget
from ehrfast.chain.key_history import FILE as KEY_HISTORY
from ehrfast.chain.recover import Recovered, recover
from ehrfast.chain.snapshot import Kind, load_snapshot, load_transaction_places
from ehrfast.chain.state_key import FOLDER as STATE_FOLDER
from ehrfast.chain.state_key import draw, state_key
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import ConflictError, CorruptionError, NotFoundError, VerificationError
from ehrfast.keys.backup_key import BACKUP_KIND, ROOT
from ehrfast.keys.signing import checkpoint_key
from ehrfast.keys.subjects import ALIAS_KIND, SUBJECT_KIND
from ehrfast.model.checkpoint import Checkpoint, verifier_key
from ehrfast.model.durable import sync_folder, write_synced
from ehrfast.model.genesis import open_genesis
from ehrfast.model.key_history import KeyHistory

RECORD: Final = "record"
BLOBS: Final = "blobs"
MAX_ENTRIES_BYTES: Final = 64 * 1024 * 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore will do: the manifest it read, who signed it, and what must not come back."""

    manifest: Manifest
    signer: bytes
    erasures: tuple[Erasure, ...]

    def history(self, chain: ChainBackup) -> KeyHistory:
        """The keys that checkpoints of a chain have been signed with, the last one being the manifest's."""
        return history_of(chain, self.signer)

    @property
    def verifier_key(self) -> str:
        """The key that checkpoints of the main chain are verified with."""
        return verifier_key(self.manifest.chain().chain_id, self.signer)


@dataclass(frozen=True, slots=True)
class Restored:
    """One chain as it stands in the new folder."""

    name: str
    chain_id: str
    height: int
    tree_size: int
    log_root: bytes
    state_root: bytes
    note: bytes
    log: Log
    replayed_from: int


def plan_restore(target: BackupTarget, *, max_height: int | None = None, vkey: str | None = None) -> RestorePlan:
    """Chooses the newest backup, or the newest of at most a height of the main chain.

    Args:
        vkey: the verifier key that the backup must be of.

    Raises:
        NotFoundError: ``backup.none``, ``backup.no_such_height``, ``backup.missing_part``.
        CorruptionError: ``backup.part_damaged``, ``backup.erased_list_damaged``.
        VerificationError: ``backup.other_signer``.
        ConflictError: ``backup.record_erased_since``: a newer backup is needed, one without that record.
    """
    keys = target.keys()
    listed = [each for each in list_manifests(target) if each.id in keys]
    if not listed:
        raise NotFoundError("backup.none")
    for each in listed:
        manifest, signer, _ = read_manifest(target, each, keys)
        if max_height is None or manifest.chain().height <= max_height:
            plan = RestorePlan(manifest, signer, tuple(read_erasures(target, signers_of(manifest, signer))))
            known = [each.encode() for each in plan.history(manifest.chain()).keys]
            if vkey is not None and vkey not in known:
                raise VerificationError("backup.other_signer")
            _require_no_record_since(plan)
            return plan
    raise NotFoundError("backup.no_such_height", {"height": max_height})


def _require_no_record_since(plan: RestorePlan) -> None:
    """A record erased after the backup was made lies in its log; nothing here could take it out again."""
    heights = {each.chain_id: each.height for each in plan.manifest.chains}
    for erasure in plan.erasures:
        records = any(kind == RECORD for kind, _ in erasure.keys)
        if records and erasure.height > heights.get(erasure.chain_id, -1):
            raise ConflictError("backup.record_erased_since", {"height": erasure.height})


def restore_keys(
    plan: RestorePlan, target: BackupTarget, folder: Path, root_key: bytes, backup_root: bytes
) -> KeyStore:
    """Makes the key store: the entries of the backup but for the erased ones, sealed anew, and fresh state keys.

    Raises:
        VerificationError: ``backup.other_signer``: the manifest is not signed by the checkpoint key it restores.
    """
    erased, subjects = _erased_keys(plan.erasures)
    store = KeyStore.create(str(folder), root_key)
    for chain in plan.manifest.chains:
        draw(store, chain.chain_id)
    store.put([(BACKUP_KIND, ROOT, backup_root)])
    key = target.keys()[plan.manifest.id]
    for number, part in enumerate(plan.manifest.entries):
        opened = unseal(key, plan.manifest.id, "entries", number, get_part(target, part))
        rows: Any = cbor_decode(opened, MAX_ENTRIES_BYTES)
        store.put([row for row in rows if (row[0], row[1]) not in erased and not _alias_of(row, subjects)])
    applied = max(plan.manifest.erased_height, 1 if subjects else 0)
    if applied:
        store.forget([], applied)
    if checkpoint_key(store).public_key != plan.signer:
        raise VerificationError("backup.other_signer")
    return store


def _erased_keys(erasures: tuple[Erasure, ...]) -> tuple[set[tuple[str, bytes]], set[bytes]]:
    erased = {key for each in erasures for key in each.keys}
    return erased, {identifier for kind, identifier in erased if kind == SUBJECT_KIND}


def _alias_of(row: tuple[str, bytes, bytes], subjects: set[bytes]) -> bool:
    if row[0] != ALIAS_KIND:
        return False
    value: Any = cbor_decode(row[2])
    return value[1] in subjects


def restore_chain(
    plan: RestorePlan,
    chain: ChainBackup,
    target: BackupTarget,
    folder: Path,
    keys: KeyStore,
    progress: Progress | None = None,
) -> Restored:
    """Writes the files of one chain, then derives every root from them.

    Raises:
        CorruptionError: ``backup.wrong_root``, or whatever recovery finds.
    """
    write_files(chain, target, folder, progress)
    genesis = open_genesis(chain.genesis)
    if genesis.chain_id != chain.chain_id:
        raise CorruptionError("log.other_genesis")
    history = plan.history(chain)
    checkpoint = history.open_checkpoint(chain.note)
    loaded = _load_state(chain, target, folder, keys)
    recovered = recover(
        folder,
        genesis,
        keys=keys,
        signer=checkpoint_key(keys),
        runtime=Runtime(Registry.default()),
        read_only=False,
        progress=progress,
        history=history,
    )
    try:
        _require_same(chain, checkpoint, recovered)
        published = recovered.published
        recovered.slots.write(chain.note, sync=True)
        return Restored(
            name=chain.name,
            chain_id=chain.chain_id,
            height=published.height,
            tree_size=published.tree_size,
            log_root=published.log_root,
            state_root=published.state_root,
            note=chain.note,
            log=recovered.log,
            replayed_from=loaded,
        )
    finally:
        recovered.state.close()
        recovered.segments.close()


def _require_same(chain: ChainBackup, checkpoint: Checkpoint, recovered: Recovered) -> None:
    published = recovered.published
    if (published.height, published.tree_size) != (chain.height, chain.tree_size):
        raise CorruptionError("backup.wrong_root", {"height": published.height})
    if (checkpoint.tree_size, checkpoint.root) != (published.tree_size, published.log_root):
        raise CorruptionError("backup.wrong_root", {"height": published.height})


def write_files(chain: ChainBackup, target: BackupTarget, folder: Path, progress: Progress | None) -> None:
    """Writes genesis, segments and cosignatures; a piece is checked before it is written."""
    (folder / "log").mkdir(mode=0o700, parents=True)
    write_synced(folder / "genesis", chain.genesis, 0o600)
    if chain.key_history:
        write_synced(folder / KEY_HISTORY, chain.key_history, 0o644)
    if chain.cosignatures is not None:
        write_synced(folder / "cosignatures", chain.cosignatures, 0o600)
    total = sum(segment.size for segment in chain.segments)
    done = 0
    for segment in chain.segments:
        for size in _written(folder / "log" / _file_name(segment.name), target, segment.pieces):
            done += size
            if progress is not None:
                progress(done, max(total, 1))
    sync_folder(folder / "log")


def _file_name(name: str) -> str:
    if Path(name).name != name or name.startswith("."):
        raise CorruptionError("backup.manifest_malformed")
    return name


def _written(path: Path, target: BackupTarget, pieces: tuple[Part, ...]) -> Iterator[int]:
    """Writes a file piece by piece, synced at its end; gives the size of each piece once it is written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        for piece in pieces:
            file.write(get_part(target, piece))
            yield piece.size
        file.flush()
        os.fsync(file.fileno())


def restore_blobs(plan: RestorePlan, target: BackupTarget, folder: Path) -> int:
    """Writes the blobs that are kept in the backup; gives how many."""
    for blob in plan.manifest.blobs:
        path = folder.joinpath(*(_file_name(part) for part in blob.name.split("/")))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in _written(path, target, blob.pieces):
            pass
        sync_folder(path.parent)
    return len(plan.manifest.blobs)


def _load_state(chain: ChainBackup, target: BackupTarget, folder: Path, keys: KeyStore) -> int:
    """Fills the state database out of the snapshot; gives the height it has, or 0 where all is to be replayed: there
    is none, or its key was destroyed with the backup that made it."""
    snapshot = chain.snapshot
    key = None if snapshot is None else target.keys().get(snapshot.backup)
    if snapshot is None or key is None:
        return 0
    segments = SegmentLog.open(str(folder / "log"), chain.chain_id, keys, read_only=True)
    state = StateDb.open(str(folder / STATE_FOLDER), state_key(keys, chain.chain_id))
    try:
        if segments.height is None or segments.height < snapshot.height:
            return 0
        log = Log()
        log.append_hashes(segments.leaf_hashes(0, snapshot.height + 1))
        checkpoint = Checkpoint(chain.chain_id, log.tree_size, log.root())
        load_transaction_places(state, segments, snapshot.height)
        parts = _snapshot_parts(chain, target, key)
        return load_snapshot(parts, checkpoint, into=state)
    finally:
        state.close()
        segments.close()


def _snapshot_parts(chain: ChainBackup, target: BackupTarget, key: bytes) -> Iterator[tuple[Kind, bytes]]:
    snapshot = chain.snapshot
    if snapshot is None:
        return
    listed: tuple[tuple[Kind, tuple[Part, ...]], ...] = (
        ("head", (snapshot.head,)),
        ("leaves", snapshot.leaves),
        ("state", snapshot.states),
    )
    for kind, parts in listed:
        for number, part in enumerate(parts):
            sealed = get_part(target, part)
            yield kind, unseal(key, snapshot.backup, f"{chain.chain_id}/{kind}", number, sealed)
