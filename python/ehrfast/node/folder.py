"""What lies where in a node's folder, and how it comes about: chains, key store, lock.

A folder is a node from the moment its settings are there; whatever was made before is taken back when that fails.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from ehrfast._core import KeyStore, LockFile, SigningKey
from ehrfast.chain.chain import Chain
from ehrfast.chain.clock import wall_ms
from ehrfast.consensus import solo as _solo  # registers the engine
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import ConflictError, DeniedError, EhrfastError, InvalidInputError, NotFoundError
from ehrfast.keys.root_key import RootKeySource, choose_source, destroy_key_file, make_key_file, read_root_key
from ehrfast.keys.signing import HeldIdentity
from ehrfast.model.durable import sync_folder, unavailable
from ehrfast.model.genesis import Genesis, Organisation, open_genesis, sign_genesis
from ehrfast.node.settings import Settings

CHAINS: Final = "chains"
KEYS: Final = "keys"
LOCK: Final = "lock"
_UNFINISHED: Final = ".new"
_ENGINE: Final = _solo.SoloEngine.name


@contextmanager
def filling(path: Path, mode: int = 0o777) -> Iterator[None]:
    """A new or empty folder, locked while it is filled, and empty again when that fails.

    Raises:
        ConflictError: ``node.exists``: the folder is not empty.
        UnavailableError: ``store.full``, ``store.read_only`` or ``store.io``.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConflictError("node.exists", {"folder": str(path)})
        lock = LockFile.acquire(str(path / LOCK))
    except OSError as error:
        raise unavailable(error) from None
    try:
        yield
    except BaseException as error:
        remove_contents(path)
        if isinstance(error, OSError) and not isinstance(error, EhrfastError):
            raise unavailable(error) from None
        raise
    finally:
        lock.release()


def new_root_key(path: Path, given: RootKeySource | None) -> RootKeySource:
    """Where a new node's root key comes from; a file that is not there yet is made."""
    source = given or choose_source()
    if source.kind == "file" and not (path / source.path).exists():
        make_key_file(path / source.path)
    return source


def remove_contents(folder: Path) -> None:
    """Takes back a node that could not be made; the folder was empty before."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def lock_if_free(path: Path) -> LockFile | None:
    """The folder's lock, None while another process has it."""
    try:
        return LockFile.acquire(str(path / LOCK))
    except ConflictError:
        return None


def chain_id(folder: Path) -> str:
    """The id of the chain in a folder of its own."""
    return open_genesis((folder / "genesis").read_bytes()).chain_id


def open_keys(path: Path, settings: Settings, *, read_only: bool) -> tuple[KeyStore, Settings]:
    """The key store, and the settings without a change of root key: done, or not, as the key store has it."""
    refused: EhrfastError | None = None
    sources = [settings.root_key, settings.next_root_key]
    for source in [each for each in sources if each is not None]:
        try:
            keys = KeyStore.open(str(path / KEYS), read_root_key(source, path), read_only=read_only)
        except (DeniedError, NotFoundError, InvalidInputError) as error:
            refused = refused or error
            continue
        if settings.next_root_key is None or read_only:
            return keys, settings
        settled = replace(settings, root_key=source, next_root_key=None)
        settled.save(path)
        for other in sources:
            if other is not None and other.kind == "file" and other != source:
                destroy_key_file(path / other.path)
        return keys, settled
    raise refused or NotFoundError("root_key.missing")


def bytes_below(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def found_chain(
    folder: Path, name: str, settings: Settings, *, administrator: HeldIdentity, keys: KeyStore, signer: SigningKey
) -> None:
    """Writes a chain beside the others in one step: a crash leaves a folder that no chain can be called."""
    runtime = Runtime(Registry.default())
    admins = ((administrator.id, administrator.key.public_key),)
    genesis = Genesis(
        name=name,
        time_ms=wall_ms(),
        engine=_ENGINE,
        organisations=(Organisation(settings.organisation, admins, 1),),
        governors=((administrator.key.public_key,), 1),
        contract_set_hash=runtime.registry.contract_set_hash(),
        python_minor=sys.version_info.minor,
    )
    signed = sign_genesis(genesis, [administrator.key])
    unfinished = folder / CHAINS / (name + _UNFINISHED)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    Chain.create(unfinished, signed, keys=keys, signer=signer, runtime=runtime)
    unfinished.rename(folder / CHAINS / name)
    sync_folder(folder / CHAINS)


def chain_names(folder: Path) -> list[str]:
    """The chains of a node, by name."""
    return sorted(path.name for path in (folder / CHAINS).iterdir() if path.is_dir() and path.suffix != _UNFINISHED)
