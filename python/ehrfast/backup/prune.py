"""Pruning a target: backups past their retention lose their key, then the parts that no other backup needs go.

The newest backup stays although it is old, unless something was erased since: then its key would keep what must go.
"""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast.backup.erased import read_erasures
from ehrfast.backup.manifest import PARTS, Manifest, list_manifests, read_manifest, signers_of
from ehrfast.backup.target import BackupTarget
from ehrfast.errors import CorruptionError, NotFoundError


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning did.

    Args:
        destroyed: sequences of the backups whose keys are gone now.
        kept: sequences of those that are left.
        deleted_parts, deleted_bytes: parts that no backup needs any more.
        held: objects that a lock still holds; run it again later.
    """

    destroyed: tuple[int, ...]
    kept: tuple[int, ...]
    deleted_parts: int
    deleted_bytes: int
    held: int


def prune_backups(target: BackupTarget, now_ms: int) -> PruneReport:
    """Destroys the keys of expired backups and deletes what only they needed.

    Raises:
        CorruptionError: a manifest that is to stay cannot be read; nothing is deleted then.
    """
    keys = target.keys()
    listed = list_manifests(target)
    read = {each.name: read_manifest(target, each, keys) for each in listed if each.id in keys}
    kept: list[Manifest] = []
    expired = []
    for position, each in enumerate(each for each in listed if each.name in read):
        manifest, signer, _ = read[each.name]
        if manifest.expires_ms > now_ms or (position == 0 and not _erased_since(target, manifest, signer)):
            kept.append(manifest)
        else:
            expired.append(manifest)
    known = {each.id for each in kept}
    needed = {part.name for manifest in kept for part in manifest.parts()}
    # A backup cut short left a key and no manifest; nobody else is writing here now.
    target.forget_keys([each for each in keys if each not in known])
    held = sum(not target.delete(each.name) for each in listed if each.id not in known)
    parts, size = 0, 0
    for name, bytes_ in target.sizes(PARTS).items():
        if name in needed:
            continue
        if target.delete(name):
            parts, size = parts + 1, size + bytes_
        else:
            held += 1
    return PruneReport(
        destroyed=tuple(sorted(each.sequence for each in expired)),
        kept=tuple(sorted(each.sequence for each in kept)),
        deleted_parts=parts,
        deleted_bytes=size,
        held=held,
    )


def _erased_since(target: BackupTarget, manifest: Manifest, signer: bytes) -> bool:
    try:
        return any(each.time_ms >= manifest.time_ms for each in read_erasures(target, signers_of(manifest, signer)))
    except NotFoundError as error:
        raise CorruptionError("backup.erased_list_damaged", error.details) from None
