"""Blobs in a local folder: one file each, named by the digest, synced with the folder before anything names them.

A file is written beside its name and renamed whole, so a name never stands for half a blob.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ehrfast._core import random_bytes
from ehrfast.errors import CorruptionError, InvalidInputError
from ehrfast.model.durable import sync_folder, unavailable
from ehrfast.records.blobs.store import BlobInfo, BlobSettings, BlobStore, BlobWriter, register_blob_store

FOLDER: Final = "blobs"
_UNFINISHED: Final = ".new-"
_NAME: Final = re.compile("[0-9a-f]{64}")
_SYNCS: Final = 8
"""Files synced side by side: a file system commits what waits together."""


class LocalBlobStore(BlobStore):
    """One folder, flat. The folder is made at the first write."""

    scheme = "local"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool: ThreadPoolExecutor | None = None

    def put_many(self, blobs: Sequence[tuple[bytes, bytes]]) -> None:
        """See `BlobStore.put_many`; one sync a file, side by side, and one of the folder."""
        try:
            self._make_folder()
            if len(blobs) > 1:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_SYNCS, "ehrfast-blobs")
                list(self._pool.map(self._write, blobs))
            else:
                for blob in blobs:
                    self._write(blob)
            if blobs:
                sync_folder(self.folder)
        except OSError as error:
            raise unavailable(error) from None

    def _write(self, blob: tuple[bytes, bytes]) -> None:
        digest, data = blob
        writer = _LocalWriter(self.folder)
        try:
            writer.append(data)
            writer.name(digest)
        except BaseException:
            writer.abandon()
            raise

    def writer(self) -> BlobWriter:
        """See `BlobStore.writer`."""
        try:
            self._make_folder()
            return _LocalWriter(self.folder)
        except OSError as error:
            raise unavailable(error) from None

    def get_range(self, digest: bytes, start: int, end: int) -> bytes:
        """See `BlobStore.get_range`."""
        try:
            with (self.folder / digest.hex()).open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), end - start, start)
                while len(data) < end - start and (more := os.pread(file.fileno(), end - start - len(data),
                                                                    start + len(data))):
                    data += more
        except FileNotFoundError:
            raise CorruptionError("blob.missing", {"blob": digest.hex()}) from None
        except OSError as error:
            raise unavailable(error) from None
        if len(data) != end - start:
            raise CorruptionError("blob.damaged", {"blob": digest.hex()})
        return data

    def size(self, digest: bytes) -> int | None:
        """See `BlobStore.size`."""
        try:
            return (self.folder / digest.hex()).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(error) from None

    def delete(self, digest: bytes) -> None:
        """See `BlobStore.delete`."""
        self.delete_many([digest])

    def delete_many(self, digests: Sequence[bytes]) -> None:
        """See `BlobStore.delete_many`; one sync of the folder."""
        try:
            for digest in digests:
                (self.folder / digest.hex()).unlink(missing_ok=True)
            if digests and self.folder.is_dir():
                sync_folder(self.folder)
        except OSError as error:
            raise unavailable(error) from None

    def list(self) -> Iterator[BlobInfo]:
        """See `BlobStore.list`."""
        for entry in self._entries():
            if _NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found = entry.stat()
                    yield BlobInfo(bytes.fromhex(entry.name), found.st_size, found.st_mtime_ns // 1_000_000)

    def remove_unfinished(self, before_ms: int) -> int:
        """See `BlobStore.remove_unfinished`."""
        removed = 0
        for entry in self._entries():
            if entry.name.startswith(_UNFINISHED) and entry.stat().st_mtime_ns // 1_000_000 < before_ms:
                Path(entry.path).unlink(missing_ok=True)
                removed += 1
        return removed

    def close(self) -> None:
        """Ends the threads that sync."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as entries:
                yield from entries
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(error) from None

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.folder.parent)


class _LocalWriter(BlobWriter):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / (_UNFINISHED + random_bytes(16).hex())
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def name(self, digest: bytes) -> None:
        """The file synced and under its name; the folder is not synced yet."""
        os.fsync(self._file)
        os.close(self._file)
        self._file = -1
        self._path.rename(self._folder / digest.hex())

    def write(self, data: bytes) -> None:
        try:
            self.append(data)
        except OSError as error:
            self.abandon()
            raise unavailable(error) from None

    def finish(self, digest: bytes) -> None:
        try:
            self.name(digest)
            sync_folder(self._folder)
        except OSError as error:
            self.abandon()
            raise unavailable(error) from None

    def abandon(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        with suppress(OSError):  # `remove_unfinished` takes what cannot be removed now
            self._path.unlink(missing_ok=True)


def _build(settings: BlobSettings, folder: Path) -> LocalBlobStore:
    address = urlsplit(settings.url)
    if address.netloc or address.query or (address.path and not address.path.startswith("/")):
        raise InvalidInputError("blobs.bad_url")
    if settings.options:
        raise InvalidInputError("blobs.unknown_option", {"known": []})
    return LocalBlobStore(Path(address.path) if address.path else folder / FOLDER)


register_blob_store(LocalBlobStore.scheme, _build)
