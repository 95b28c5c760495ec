"""A node out of a backup: it opens for reading only, until a checkpoint from outside says that nothing newer exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ehrfast.backup.restore import RestorePlan, plan_restore, restore_blobs, restore_chain, restore_keys
from ehrfast.backup.target import BackupTarget, open_target
from ehrfast.backup.unproven import Head, ask_witnesses, mark, match_checkpoint
from ehrfast.keys.root_key import RootKeySource, read_root_key
from ehrfast.model.ask_witness import WitnessAddress
from ehrfast.model.checkpoint import verifier_key
from ehrfast.model.durable import sync_folder
from ehrfast.node.folder import CHAINS, KEYS, filling, new_root_key
from ehrfast.node.settings import Settings


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore made.

    Args:
        sequence: of the backup.
        log_root, state_root: of the main chain, derived again from the restored bytes.
        replayed_blocks: of the main chain, beyond its snapshot.
        blobs: how many came back.
        erased: how many keys were left out as erased.
        witnesses: what each witness said: None where it cosigned the head, else a code.
        writable: whether a checkpoint from outside matched.
    """

    sequence: int
    time_ms: int
    chain_id: str
    height: int
    tree_size: int
    log_root: str
    state_root: str
    verifier_key: str
    replayed_blocks: int
    blobs: int
    erased: int
    witnesses: Mapping[str, str | None]
    writable: bool


def restore(
    target: str,
    path: Path,
    backup_root: bytes,
    *,
    max_height: int | None,
    vkey: str | None,
    witnesses: tuple[WitnessAddress, ...],
    checkpoint: bytes | None,
    root_key: RootKeySource | None,
    progress: Callable[[int, int], None] | None,
) -> RestoreReport:
    """Makes a node out of a backup; see `Node.restore`."""
    opened = open_target(target, backup_root, create=False)
    try:
        plan = plan_restore(opened, max_height=max_height, vkey=vkey)
        with filling(path, 0o700):
            source = new_root_key(path, root_key)
            return _restore_into(path, plan, opened, backup_root, source, witnesses, checkpoint, progress)
    finally:
        opened.close()


def matched(
    heads: Sequence[Head], known: Iterable[WitnessAddress], checkpoint: bytes | None
) -> tuple[bool, dict[str, str | None]]:
    """Whether something from outside says that nothing newer exists, and what each witness said."""
    said = ask_witnesses(heads, {each.vkey: each for each in known}.values())
    if checkpoint is not None:
        match_checkpoint(heads, checkpoint)
    return checkpoint is not None or any(code is None for code in said.values()), said


def _restore_into(
    path: Path,
    plan: RestorePlan,
    target: BackupTarget,
    backup_root: bytes,
    source: RootKeySource,
    witnesses: tuple[WitnessAddress, ...],
    checkpoint: bytes | None,
    progress: Callable[[int, int], None] | None,
) -> RestoreReport:
    manifest = plan.manifest
    keys = restore_keys(plan, target, path / KEYS, read_root_key(source, path), backup_root)
    try:
        restored = [
            restore_chain(plan, each, target, path / CHAINS / each.name, keys, progress) for each in manifest.chains
        ]
    finally:
        keys.close()
    sync_folder(path / CHAINS)
    blobs = restore_blobs(plan, target, path)
    settings = replace(Settings.parse(manifest.settings), root_key=source, next_root_key=None)
    heads = [Head(each.note, verifier_key(each.chain_id, plan.signer), each.log.prove_consistency) for each in restored]
    writable, said = matched(heads, (*settings.witnesses, *witnesses), checkpoint)
    if not writable:
        mark(path, manifest.sequence)
    settings.save(path)
    main = next(each for each in restored if each.name == manifest.main)
    return RestoreReport(
        sequence=manifest.sequence,
        time_ms=manifest.time_ms,
        chain_id=main.chain_id,
        height=main.height,
        tree_size=main.tree_size,
        log_root=main.log_root.hex(),
        state_root=main.state_root.hex(),
        verifier_key=plan.verifier_key,
        replayed_blocks=main.height - main.replayed_from,
        blobs=blobs,
        erased=sum(len(each.keys) + len(each.items) for each in plan.erasures),
        witnesses=said,
        writable=writable,
    )
