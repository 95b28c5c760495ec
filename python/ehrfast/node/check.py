"""fsck of a node that is not open, or that refuses to open: settings, key store, every chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ehrfast._core import KeyStore, StateDb
from ehrfast.chain.fsck import KEY_ENTRIES, Erased, Fault, FsckReport, fsck, key_store_fault, slot_fault
from ehrfast.chain.key_history import FILE as KEY_HISTORY
from ehrfast.chain.key_history import load_history
from ehrfast.chain.state_key import FOLDER as STATE_FOLDER
from ehrfast.chain.state_key import is_due, state_key
from ehrfast.errors import CorruptionError, DeniedError, EhrfastError, InvalidInputError, UnavailableError
from ehrfast.keys.signing import checkpoint_key
from ehrfast.model.genesis import open_genesis
from ehrfast.model.key_history import KeyHistory
from ehrfast.node.folder import CHAINS, chain_names, lock_if_free, open_keys
from ehrfast.node.settings import FILE, Settings
from ehrfast.records.blobs import open_blob_store


def check(path: Path, progress: Callable[[int, int], None] | None) -> FsckReport:
    """Checks a node's folder; beside a running node the state database is left out."""
    try:
        settings = Settings.load(path)
    except CorruptionError as error:
        return FsckReport(0, 0, (Fault(FILE, 0, error.code, None),))
    lock = lock_if_free(path)
    try:
        blobs = open_blob_store(settings.blobs, path)
        keys, faults = _fsck_keys(path, settings)
        reports = [] if keys is None else [
            _fsck_chain(
                path / CHAINS / name,
                keys,
                settings.organisation,
                progress,
                alone=lock is not None,
                blob_fault=blobs.fault,
            )
            for name in chain_names(path)
        ]
        if keys is not None:
            keys.close()
    finally:
        if lock is not None:
            lock.release()
    return FsckReport(
        sum(report.blocks for report in reports),
        sum(report.transactions for report in reports),
        (*faults, *(fault for report in reports for fault in report.faults)),
        sum((report.erased for report in reports), start=Erased()),
        sum(report.pruned for report in reports),
        sum(report.blobs for report in reports),
    )


def _fsck_keys(path: Path, settings: Settings) -> tuple[KeyStore | None, list[Fault]]:
    """The key store for reading, None where it does not open, and what is wrong with its files and the root key's."""
    source = settings.root_key
    try:
        keys, _ = open_keys(path, settings, read_only=True)
    except CorruptionError as error:
        return None, [key_store_fault(error)]
    except (InvalidInputError, DeniedError) as error:
        if source.kind != "file" or error.code not in ("root_key.malformed", "keys.wrong_root_key"):
            raise
        return None, [Fault(source.path, 0, error.code, None)]
    return keys, [] if keys.damaged_copies == 0 else [slot_fault(keys)]


def _fsck_chain(
    folder: Path,
    keys: KeyStore,
    custodian: bytes,
    progress: Callable[[int, int], None] | None,
    *,
    alone: bool,
    blob_fault: Callable[[bytes], str | None],
) -> FsckReport:
    try:
        genesis = open_genesis((folder / "genesis").read_bytes())
        signer = checkpoint_key(keys)
    except (EhrfastError, FileNotFoundError):
        return fsck(folder, keys=keys, history=None, custodian=custodian, progress=progress)
    state, faults = _open_for_fsck(folder, keys, genesis.chain_id) if alone else (None, [])
    try:
        history: KeyHistory | None = None
        try:
            history = load_history(folder, genesis.chain_id, signer.public_key)
        except CorruptionError as error:
            faults = [*faults, Fault(KEY_HISTORY, 0, error.code, None)]
        found = fsck(
            folder,
            keys=keys,
            history=history,
            state=state,
            custodian=custodian,
            blob_fault=blob_fault,
            progress=progress,
        )
        return replace(found, faults=(*found.faults, *faults))
    finally:
        if state is not None:
            state.close()


def _open_for_fsck(folder: Path, keys: KeyStore, chain_id: str) -> tuple[StateDb | None, list[Fault]]:
    try:
        key = state_key(keys, chain_id)
    except CorruptionError as error:
        return None, [Fault(KEY_ENTRIES, 0, error.code, None)]
    if is_due(keys, chain_id):  # made anew at the next open: nothing would be learnt from it
        return None, []
    try:
        return StateDb.open(str(folder / STATE_FOLDER), key), []
    except (CorruptionError, UnavailableError) as error:
        return None, [Fault("state", 0, error.code, None)]
