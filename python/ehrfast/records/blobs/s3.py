"""Blobs in an S3-compatible bucket, through obstore. Credentials come from the environment or the machine's role.

Retries are bounded here and nowhere else: a server that stays away is an error the caller sees within seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ehrfast._core import random_bytes
from ehrfast.errors import CorruptionError, EhrfastError, InvalidInputError, UnavailableError
from ehrfast.records.blobs.store import BlobInfo, BlobSettings, BlobStore, BlobWriter, register_blob_store

MAX_RETRIES: Final = 3
RETRY_TIMEOUT_S: Final = 20
REQUEST_TIMEOUT_S: Final = 60
_PART_BYTES: Final = 8 * 1024 * 1024
_AT_ONCE: Final = 8
_BLOBS: Final = "blobs/"
_UNFINISHED: Final = "unfinished/"
_OPTIONS: Final = ("endpoint", "region")
_INSUFFICIENT_STORAGE: Final = 507
_FULL: Final = ("InsufficientStorage", "StorageFull", "QuotaExceeded", "No space left", "no space left", "NoSpace")
_STATUS: Final = re.compile(r"returned non-2xx status code: (\d{3})(.*)", re.DOTALL)
_TIMEOUT: Final = re.compile(r"\bkind: Timeout\b")

T = TypeVar("T")


class S3BlobStore(BlobStore):
    """One bucket, under a prefix.

    Args:
        bucket: must exist.
        prefix: of every key, ends in a slash unless empty.
        endpoint: of a server that is not AWS; plain http is for a machine's own network.
    """

    scheme = "s3"

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint: str | None = None, region: str | None = None
    ) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ModuleNotFoundError:
            raise UnavailableError("blobs.not_installed", {"extra": "blobs"}) from None
        self._obstore: Any = obstore
        self._prefix = prefix
        settings: dict[str, Any] = {}
        if endpoint is not None:
            settings["endpoint"] = endpoint
        if region is not None:
            settings["region"] = region
        client: Any = {"timeout": timedelta(seconds=REQUEST_TIMEOUT_S)}
        if endpoint is not None and endpoint.startswith("http://"):
            client["allow_http"] = True
        retries: Any = {"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)}
        try:
            self._store: Any = S3Store(bucket, client_options=client, retry_config=retries, **settings)
        except obstore.exceptions.BaseError:
            raise InvalidInputError("blobs.bad_url") from None
        self._pool: ThreadPoolExecutor | None = None

    def put_many(self, blobs: Sequence[tuple[bytes, bytes]]) -> None:
        """See `BlobStore.put_many`; the server's answer to each is its word that the blob is durable."""
        self._each(self._put, blobs)

    def _put(self, blob: tuple[bytes, bytes]) -> None:
        digest, data = blob
        self._try(lambda: self._obstore.put(self._store, self._key(digest), data, use_multipart=False))

    def writer(self) -> BlobWriter:
        """See `BlobStore.writer`: parts go up as they come, and the name is given by a copy within the bucket."""
        return _S3Writer(self)

    def get_range(self, digest: bytes, start: int, end: int) -> bytes:
        """See `BlobStore.get_range`."""
        if end <= start:
            return b""
        try:
            got = self._try(lambda: self._obstore.get_range(self._store, self._key(digest), start=start, end=end))
        except FileNotFoundError:
            raise CorruptionError("blob.missing", {"blob": digest.hex()}) from None
        data = bytes(got)
        if len(data) != end - start:
            raise CorruptionError("blob.damaged", {"blob": digest.hex()})
        return data

    def size(self, digest: bytes) -> int | None:
        """See `BlobStore.size`."""
        try:
            return int(self._try(lambda: self._obstore.head(self._store, self._key(digest)))["size"])
        except FileNotFoundError:
            return None

    def delete(self, digest: bytes) -> None:
        """See `BlobStore.delete`."""
        self.remove(self._key(digest))

    def delete_many(self, digests: Sequence[bytes]) -> None:
        """See `BlobStore.delete_many`."""
        self._each(self.delete, digests)

    def _each(self, do: Callable[[T], None], of: Sequence[T]) -> None:
        """Some requests at once; all have ended when it returns or raises."""
        if len(of) < 2:
            for each in of:
                do(each)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_AT_ONCE, "ehrfast-blobs")
        running = [self._pool.submit(do, each) for each in of]
        wait(running)
        for each_done in running:
            each_done.result()

    def list(self) -> Iterator[BlobInfo]:
        """See `BlobStore.list`."""
        for found in self._listed(_BLOBS):
            name = found["path"].rpartition("/")[2]
            with suppress(ValueError):
                yield BlobInfo(bytes.fromhex(name), found["size"], _ms(found["last_modified"]))

    def remove_unfinished(self, before_ms: int) -> int:
        """See `BlobStore.remove_unfinished`; parts of uploads that never ended are for the bucket's lifecycle rule."""
        old = [found["path"] for found in self._listed(_UNFINISHED) if _ms(found["last_modified"]) < before_ms]
        for path in old:
            self.remove(path)
        return len(old)

    def close(self) -> None:
        """Ends the threads that send."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def remove(self, path: str) -> None:
        """Removes one key; a missing one is fine."""
        with suppress(FileNotFoundError):
            self._try(lambda: self._obstore.delete(self._store, path))

    def open_upload(self) -> tuple[str, Any]:
        """A key nobody else has, and a writer of it."""
        path = f"{self._prefix}{_UNFINISHED}{random_bytes(16).hex()}"
        opened = self._try(
            lambda: self._obstore.open_writer(self._store, path, buffer_size=_PART_BYTES, max_concurrency=1)
        )
        return path, opened

    def rename(self, path: str, digest: bytes) -> None:
        """Gives an upload its name."""
        self._try(lambda: self._obstore.copy(self._store, path, self._key(digest), overwrite=True))
        self.remove(path)

    def run(self, do: Callable[[], T]) -> T:
        """One operation of the library, its failures in our words."""
        return self._try(do)

    def _listed(self, below: str) -> Iterator[Any]:
        pages = self._try(lambda: self._obstore.list(self._store, prefix=self._prefix + below))
        while True:
            page = self._try(lambda: next(pages, None))
            if page is None:
                return
            yield from page

    def _key(self, digest: bytes) -> str:
        return f"{self._prefix}{_BLOBS}{digest.hex()}"

    def _try(self, do: Callable[[], T]) -> T:
        failures = self._obstore.exceptions
        try:
            return do()
        except FileNotFoundError:
            raise
        except (failures.PermissionDeniedError, failures.UnauthenticatedError):
            raise UnavailableError("store.denied") from None
        except (failures.BaseError, OSError) as error:
            raise _unavailable(error) from None


class _S3Writer(BlobWriter):
    def __init__(self, store: S3BlobStore) -> None:
        self._store = store
        self._path, self._upload = store.open_upload()
        self._bytes = 0
        self._failed = False

    def write(self, data: bytes) -> None:
        self._run(lambda: self._upload.write(data))
        self._bytes += len(data)

    def finish(self, digest: bytes) -> None:
        self._run(self._upload.close)
        self._upload = None
        self._run(lambda: self._store.rename(self._path, digest))
        if self._store.size(digest) != self._bytes:
            raise UnavailableError("store.io", {"step": "size"})

    def _run(self, do: Callable[[], object]) -> None:
        try:
            self._store.run(do)
        except FileNotFoundError:
            self._failed = True
            raise UnavailableError("store.io", {"step": "rename"}) from None
        except EhrfastError:
            self._failed = True
            raise

    def abandon(self) -> None:
        upload, self._upload = self._upload, None
        if self._failed:  # asking again would only wait for the server once more
            return
        # What cannot be removed now is for `remove_unfinished` and the bucket's lifecycle rule.
        with suppress(EhrfastError, FileNotFoundError):
            if upload is not None:
                self._store.run(upload.close)
            self._store.remove(self._path)


def _unavailable(error: Exception) -> UnavailableError:
    """The text of the failure names keys and addresses, so only its kind goes on."""
    told = str(error)
    answered = _STATUS.search(told)
    if answered is not None:
        status, body = int(answered[1]), answered[2]
        if status == _INSUFFICIENT_STORAGE or any(word in body for word in _FULL):
            return UnavailableError("store.full", {"status": status})
        return UnavailableError("store.io", {"status": status})
    if _TIMEOUT.search(told):
        return UnavailableError("store.timeout")
    return UnavailableError("store.io", {"kind": type(error).__name__})


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _build(settings: BlobSettings, folder: Path) -> S3BlobStore:
    del folder
    address = urlsplit(settings.url)
    if not address.netloc or "@" in address.netloc or address.query:
        raise InvalidInputError("blobs.bad_url")
    options = dict(settings.options)
    if not set(options) <= set(_OPTIONS):
        raise InvalidInputError("blobs.unknown_option", {"known": list(_OPTIONS)})
    if "@" in options.get("endpoint", ""):
        raise InvalidInputError("blobs.bad_url")
    prefix = address.path.strip("/")
    return S3BlobStore(
        address.netloc,
        f"{prefix}/" if prefix else "",
        endpoint=options.get("endpoint"),
        region=options.get("region"),
    )


register_blob_store(S3BlobStore.scheme, _build)
