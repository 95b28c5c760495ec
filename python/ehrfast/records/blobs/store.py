"""The port of blob stores, and their registry. An adapter is one file that registers itself by scheme.

Blobs are sealed before they come here and named by keyed["pack-item"] of their bytes, so every reader can tell a
changed one. Owns the names and the checks; adapters move bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from ehrfast._core import KeyedHasher, keyed_digest
from ehrfast.errors import CorruptionError, InvalidInputError

DIGEST_BYTES: Final = 32
_USE: Final = "pack-item"
_STEP_BYTES: Final = 8 * 1024 * 1024
"""Of a blob read through: what is in memory of it."""


@dataclass(frozen=True, slots=True)
class BlobSettings:
    """Which store a node uses; never a credential.

    Args:
        url: ``local:`` for the folder ``blobs`` of the node, ``local:/folder``, or ``s3://bucket/prefix``.
        options: of the adapter; for S3 ``endpoint`` and ``region``.
    """

    url: str = "local:"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def scheme(self) -> str:
        """What picks the adapter."""
        return urlsplit(self.url).scheme

    @staticmethod
    def of(value: Mapping[str, str]) -> BlobSettings:
        """Reads what `as_dict` gives."""
        options = tuple(sorted((name, text) for name, text in value.items() if name != "url"))
        return BlobSettings(value["url"], options)

    def as_dict(self) -> dict[str, str]:
        """For the settings file and for showing."""
        return {"url": self.url, **dict(self.options)}


LOCAL_BLOBS: Final = BlobSettings()
"""The default: a folder of the node itself."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A stored blob.

    Args:
        digest: its name.
        bytes: its size.
        modified_ms: when it was written, by the store's clock.
    """

    digest: bytes
    bytes: int
    modified_ms: int


class BlobWriter(ABC):
    """Takes a blob whose digest is known only at its end. Left without `finish`, nothing is stored."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            UnavailableError: ``store.full``, ``store.io``, ``store.timeout``, ``store.read_only``, ``store.denied``.
        """

    @abstractmethod
    def finish(self, digest: bytes) -> None:
        """Stores what was written under its digest; durable when it returns. Raises as `write`."""

    @abstractmethod
    def abandon(self) -> None:
        """Lets go of what was written."""

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()


class BlobStore(ABC):
    """Keeps sealed items by their digest.

    What success does *not* mean: a blob that was put is durable in this store, and nothing more. No frame names it
    yet, so a crash now leaves an orphan; no second copy exists; nothing keeps others with access to the store from
    removing or changing it. A change is found at reading, never before, and a blob that is gone is gone.
    """

    scheme: str

    @abstractmethod
    def put_many(self, blobs: Sequence[tuple[bytes, bytes]]) -> None:
        """Stores (digest, bytes) pairs; all of them are durable when it returns, and after a failure any may be.

        Raises:
            UnavailableError: ``store.full``, ``store.io``, ``store.timeout``, ``store.read_only``, ``store.denied``.
        """

    @abstractmethod
    def writer(self) -> BlobWriter:
        """Begins a blob of any length. Raises as `put_many`."""

    @abstractmethod
    def get_range(self, digest: bytes, start: int, end: int) -> bytes:
        """Some of a blob, as the store has it: only the whole can be held against the digest.

        Raises:
            CorruptionError: ``blob.missing``, ``blob.damaged`` where it ends before ``end``.
            UnavailableError: ``store.io``, ``store.timeout``, ``store.denied``.
        """

    @abstractmethod
    def size(self, digest: bytes) -> int | None:
        """Bytes of a blob, None when there is none.

        Raises:
            UnavailableError: ``store.io``, ``store.timeout``, ``store.denied``.
        """

    @abstractmethod
    def delete(self, digest: bytes) -> None:
        """Removes a blob, durably; one that is not there is fine. Versions and backups of the store are not its
        business.

        Raises:
            UnavailableError: ``store.io``, ``store.timeout``, ``store.read_only``, ``store.denied``.
        """

    def delete_many(self, digests: Sequence[bytes]) -> None:
        """Removes blobs; see `delete`. After a failure any may be gone."""
        for digest in digests:
            self.delete(digest)

    @abstractmethod
    def list(self) -> Iterator[BlobInfo]:
        """Every blob, in no order, whole ones only.

        Raises:
            UnavailableError: ``store.io``, ``store.timeout``, ``store.denied``.
        """

    @abstractmethod
    def remove_unfinished(self, before_ms: int) -> int:
        """Removes what writers that never finished left before that time; gives how many."""

    def put(self, digest: bytes, data: bytes) -> None:
        """Stores one blob; see `put_many`."""
        self.put_many([(digest, data)])

    def exists(self, digest: bytes) -> bool:
        """Whether there is a blob of that name; says nothing of its bytes."""
        return self.size(digest) is not None

    def get(self, digest: bytes) -> bytes:
        """A whole blob, held against its digest.

        Raises:
            CorruptionError: ``blob.missing``, ``blob.damaged``.
            UnavailableError: ``store.io``, ``store.timeout``, ``store.denied``.
        """
        size = self.size(digest)
        if size is None:
            raise CorruptionError("blob.missing", {"blob": digest.hex()})
        data = self.get_range(digest, 0, size)
        if keyed_digest(_USE, data) != digest:
            raise CorruptionError("blob.damaged", {"blob": digest.hex()})
        return data

    def fault(self, digest: bytes) -> str | None:
        """What is wrong with a blob: ``blob.missing``, ``blob.damaged``, or nothing; all of it is read, in steps.

        Raises:
            UnavailableError: ``store.io``, ``store.timeout``, ``store.denied``.
        """
        try:
            for _ in self.read_through(digest):
                pass
        except CorruptionError as error:
            return error.code
        return None

    def read_through(self, digest: bytes) -> Iterator[bytes]:
        """A blob from start to end, at most 8 MiB at a time, held against its digest after the last.

        Raises:
            CorruptionError: ``blob.missing``, ``blob.damaged``, which may come after all bytes.
            UnavailableError: ``store.io``, ``store.timeout``, ``store.denied``.
        """
        size = self.size(digest)
        if size is None:
            raise CorruptionError("blob.missing", {"blob": digest.hex()})
        hasher = KeyedHasher(_USE)
        for start in range(0, size, _STEP_BYTES):
            data = self.get_range(digest, start, min(start + _STEP_BYTES, size))
            hasher.update(data)
            yield data
        if hasher.digest() != digest:
            raise CorruptionError("blob.damaged", {"blob": digest.hex()})

    def copy_from(self, other: BlobStore, digest: bytes) -> None:
        """Takes a blob of another store; durable here when it returns, and here only if it is whole.

        Raises:
            CorruptionError: ``blob.missing``, ``blob.damaged``: there.
            UnavailableError: ``store.full``, ``store.io``, ``store.timeout``, ``store.read_only``, ``store.denied``.
        """
        if self.size(digest) is not None and self.fault(digest) is None:
            return
        if (other.size(digest) or 0) <= _STEP_BYTES:
            self.put(digest, other.get(digest))
            return
        with self.writer() as copy:
            for data in other.read_through(digest):
                copy.write(data)
            copy.finish(digest)

    def close(self) -> None:
        """Lets go of connections and threads."""
        return


_STORES: Final[dict[str, Callable[[BlobSettings, Path], BlobStore]]] = {}


def register_blob_store(scheme: str, build: Callable[[BlobSettings, Path], BlobStore]) -> None:
    """Makes a store known by the scheme of its URLs; called where the adapter is defined."""
    _STORES[scheme] = build


def blob_stores() -> Sequence[str]:
    """Schemes of the registered stores."""
    return sorted(_STORES)


def open_blob_store(settings: BlobSettings, folder: Path) -> BlobStore:
    """The store a node is set to use.

    Args:
        folder: the node's.

    Raises:
        InvalidInputError: ``blobs.unknown_store``, ``blobs.bad_url``, ``blobs.unknown_option``.
        UnavailableError: ``blobs.not_installed``: ``pip install 'ehrfast[blobs]'`` is needed for this store.
    """
    build = _STORES.get(settings.scheme)
    if build is None:
        raise InvalidInputError("blobs.unknown_store", {"known": list(blob_stores())})
    return build(settings, folder)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A blob read in steps of the same size, with one look ahead so that the last is known as the last."""

    store: BlobStore = field(repr=False)
    digest: bytes
    start: int
    size: int
    step: int

    def __iter__(self) -> Iterator[tuple[bytes, bool]]:
        """(bytes, whether these are the last)."""
        for start in range(self.start, max(self.size, self.start + 1), self.step):
            end = min(start + self.step, self.size)
            yield self.store.get_range(self.digest, start, end), end == self.size
