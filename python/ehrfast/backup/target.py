"""Where backups go: named objects that are written once, in a folder here.

Owns durability: what `put` returned from survives a crash, and an object is whole or not there. Refuses nothing about
the bytes; the parts are sealed and named by their digests above.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from ehrfast._core import KeyStore, LockFile
from ehrfast.errors import ConflictError, InvalidInputError, NotFoundError
from ehrfast.model.durable import write_synced

KEY_KIND: Final = "backup"
_KEYS: Final = "keys"
_LOCK: Final = "lock"


class BackupTarget(Protocol):
    """Named objects, and the second key store whose keys seal them."""

    def put(self, name: str, data: bytes) -> None:
        """Keeps an object, durable when it returns."""
        ...

    def get(self, name: str) -> bytes:
        """An object.

        Raises:
            NotFoundError: ``backup.missing_part``.
        """
        ...

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """Names below a prefix ending in ``/``, each with its size."""
        ...

    def delete(self, name: str) -> bool:
        """Removes an object; False where a lock still holds it."""
        ...

    def protect(self, names: list[str], until_ms: int) -> int:
        """Locks objects against deletion where the medium can; gives how many are locked."""
        ...

    def keys(self) -> Mapping[bytes, bytes]:
        """The keys of the backups kept here, by backup id."""
        ...

    def add_key(self, backup: bytes, key: bytes) -> None:
        """Keeps the key of a new backup, durable when it returns."""
        ...

    def forget_keys(self, backups: list[bytes]) -> None:
        """Destroys keys: what they sealed opens no more."""
        ...

    def close(self) -> None:
        """Lets go of the target."""
        ...


class FolderTarget:
    """A target in a folder: another disk, or a share.

    Args:
        folder: made where missing.
        root_key: of its key store.
        create: whether a folder without a key store becomes a target.

    Raises:
        NotFoundError: ``backup.not_there``.
        ConflictError: ``backup.not_a_target``: it holds something else; ``node.locked``: another backup is running.
        DeniedError: ``keys.wrong_root_key``.
    """

    def __init__(self, folder: Path, root_key: bytes, *, create: bool) -> None:
        self._folder = folder
        self._lock: LockFile | None = None
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            strangers = [each for each in folder.iterdir() if each.name != _LOCK]
            if strangers and not (folder / _KEYS).exists():
                raise ConflictError("backup.not_a_target", {"target": str(folder)})
            self._lock = LockFile.acquire(str(folder / _LOCK))
        elif not (folder / _KEYS).is_dir():
            raise NotFoundError("backup.not_there", {"target": str(folder)})
        path = str(folder / _KEYS)
        try:
            self._keys = KeyStore.open(path, root_key, read_only=not create)
        except NotFoundError:
            if not create:
                raise NotFoundError("backup.not_there", {"target": str(folder)}) from None
            self._keys = KeyStore.create(path, root_key)

    def put(self, name: str, data: bytes) -> None:
        """See `BackupTarget`."""
        path = self._folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_synced(path, data, 0o400)

    def get(self, name: str) -> bytes:
        """See `BackupTarget`."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("backup.missing_part", {"part": name}) from None

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """See `BackupTarget`."""
        try:
            found = [each for each in os.scandir(self._folder / prefix) if not each.name.startswith(".")]
        except FileNotFoundError:
            return {}
        return {prefix + each.name: each.stat().st_size for each in sorted(found, key=lambda each: each.name)}

    def delete(self, name: str) -> bool:
        """See `BackupTarget`."""
        (self._folder / name).unlink(missing_ok=True)
        return True

    def protect(self, names: list[str], until_ms: int) -> int:
        """A folder has no lock that its owner cannot lift."""
        return 0

    def keys(self) -> Mapping[bytes, bytes]:
        """See `BackupTarget`."""
        return {each: self._keys.get(KEY_KIND, each) or b"" for each in self._keys.ids(KEY_KIND)}

    def add_key(self, backup: bytes, key: bytes) -> None:
        """See `BackupTarget`."""
        self._keys.put([(KEY_KIND, backup, key)])

    def forget_keys(self, backups: list[bytes]) -> None:
        """See `BackupTarget`."""
        self._keys.forget([(KEY_KIND, each) for each in backups], self._keys.applied_erasure_height)

    def close(self) -> None:
        """See `BackupTarget`."""
        self._keys.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def open_target(address: str, root_key: bytes, *, create: bool) -> BackupTarget:
    """The target at an address: a folder.

    Args:
        root_key: the backup root key.
        create: for writing; a new target is made where there is none.

    Raises:
        InvalidInputError: ``backup.unknown_target``: an address of another kind.
    """
    if "://" in address:
        raise InvalidInputError("backup.unknown_target", {"target": address})
    return FolderTarget(Path(address), root_key, create=create)
