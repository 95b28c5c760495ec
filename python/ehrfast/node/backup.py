"""A node's backups: what of a node goes into them, and the list of erasures that no restore undoes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ehrfast._core import KeyStore
from ehrfast.access.erase import Erasure
from ehrfast.backup.erased import Erasure as ListedErasure
from ehrfast.backup.erased import append_erasures
from ehrfast.backup.make import BackupReport, Source, make_backup
from ehrfast.backup.manifest import list_manifests, read_manifest
from ehrfast.backup.restore import BLOBS
from ehrfast.backup.target import open_target
from ehrfast.chain.clock import wall_ms
from ehrfast.errors import EhrfastError, UnavailableError
from ehrfast.keys.backup_key import backup_root_key
from ehrfast.keys.signing import checkpoint_key
from ehrfast.model.durable import unavailable
from ehrfast.node.settings import FILE

if TYPE_CHECKING:
    from ehrfast.node.node import Node


def back_up(
    frozen: Node, keys: KeyStore, target: str | os.PathLike[str], progress: Callable[[int, int], None] | None
) -> BackupReport:
    """Backs up a node as it was opened for reading.

    Args:
        keys: its key store, opened after the chains: what they name is in it, whatever a writer does meanwhile.

    Raises:
        UnavailableError: ``backup.keys_changing``: the checkpoint key was changed between the two; once more does it.
    """
    signer = checkpoint_key(keys)
    if signer.public_key != frozen.chain.signer_public_key:
        raise UnavailableError("backup.keys_changing")
    source = Source(
        settings=(frozen.folder / FILE).read_bytes(),
        keys=keys,
        chains=frozen.chains,
        main=frozen.settings.main_chain,
        signer=signer,
        retention_days=frozen.settings.retention_days,
        now_ms=wall_ms(),
        blobs=_blobs_below(frozen.folder),
    )
    listed = [_listed(frozen.chain.chain_id, each) for each in frozen.erasures]
    try:
        opened = open_target(os.fspath(target), backup_root_key(keys), create=True)
        try:
            append_erasures(opened, listed, signer, _former_keys(frozen))
            return make_backup(source, opened, progress)
        finally:
            opened.close()
    except OSError as error:
        if isinstance(error, EhrfastError):
            raise
        raise unavailable(error) from None


def list_erasures(
    node: Node, keys: KeyStore, target: str | os.PathLike[str], erasures: Sequence[ListedErasure]
) -> int:
    """Appends erasures to a target's erased list; see `Node.list_erasures`."""
    opened = open_target(os.fspath(target), backup_root_key(keys), create=True)
    try:
        append_erasures(opened, erasures, checkpoint_key(keys), _former_keys(node))
        held = opened.keys()
        manifests = [read_manifest(opened, each, held)[0] for each in list_manifests(opened) if each.id in held]
        return max((each.expires_ms for each in manifests), default=0)
    finally:
        opened.close()


def _former_keys(node: Node) -> frozenset[bytes]:
    return frozenset(each.public_key for each in node.key_history.keys)


def _listed(chain_id: str, erasure: Erasure) -> ListedErasure:
    return ListedErasure(chain_id, erasure.height, erasure.time_ms, ((erasure.kind, erasure.target),))


def _blobs_below(folder: Path) -> list[tuple[str, int, Callable[[int, int], bytes]]]:
    """The blobs of the node's own store; names of unfinished ones begin with a dot."""
    found: list[tuple[str, int, Callable[[int, int], bytes]]] = []
    for path in sorted((folder / BLOBS).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found.append((str(path.relative_to(folder)), path.stat().st_size, partial(_read_bytes, path)))
    return found


def _read_bytes(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)
