"""Archives: sealed items that pruning took away, as they were, in files that nobody without the keys can read.

Those of the log stand in files together, blobs beside them each by itself. The wraps stay in the log: what is erased
later opens from no archive either. Refuses files that are not whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ehrfast._core import blake3_digest, cbor_decode, cbor_encode
from ehrfast.errors import CorruptionError, EhrfastError, NotFoundError
from ehrfast.model.durable import unavailable, write_synced
from ehrfast.records.blobs.local import LocalBlobStore
from ehrfast.records.blobs.store import BlobStore

SUFFIX: Final = ".archive"
BLOBS: Final = "blobs"
FORMAT: Final = 1
FILE_BYTES: Final = 64 * 1024 * 1024
_MAX_BYTES: Final = 1 << 30
_ID: Final = 16
_ROW: Final = (bytes, int, int, bytes, int, bytes | None)
_DIGEST: Final = 32
_ROW_BYTES: Final = 128
"""Of a row without its item, about."""


@dataclass(frozen=True, slots=True)
class Archived:
    """One sealed item.

    Args:
        pack_root, position: where it lay in the block of that height.
        item: its bytes; None where it is a blob, which lies in `archived_blobs` under its digest.
    """

    record_id: bytes
    version: int
    height: int
    pack_root: bytes
    position: int
    item: bytes | None = field(repr=False)


def archived_blobs(folder: Path) -> BlobStore:
    """Where an archive keeps the blobs that it names."""
    return LocalBlobStore(folder / BLOBS)


def write_archive(folder: Path, chain_id: str, items: Iterable[Archived]) -> list[Path]:
    """Writes items to files of up to 64 MiB, or one larger item; they are durable when it returns.

    Raises:
        UnavailableError: ``store.full``, ``store.io``, ``store.read_only``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise unavailable(error) from None
    written: list[Path] = []
    part: list[Archived] = []
    size = 0
    for each in items:
        taken = 0 if each.item is None else len(each.item)
        if part and size + taken > FILE_BYTES:
            written.append(_write(folder, chain_id, part))
            part, size = [], 0
        part.append(each)
        size += taken + _ROW_BYTES
    if part:
        written.append(_write(folder, chain_id, part))
    return written


def read_archives(folder: Path, chain_id: str) -> Iterator[Archived]:
    """Everything that the archives of a folder hold of a chain.

    Raises:
        NotFoundError: ``archive.not_there``.
        CorruptionError: ``archive.damaged``, with the file's name.
    """
    if not folder.is_dir():
        raise NotFoundError("archive.not_there")
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        yield from _read(path, chain_id)


def _write(folder: Path, chain_id: str, part: Sequence[Archived]) -> Path:
    rows = tuple((a.record_id, a.version, a.height, a.pack_root, a.position, a.item) for a in part)
    content = cbor_encode((FORMAT, chain_id, rows))
    digest = blake3_digest(content)
    path = folder / f"{digest[:16].hex()}{SUFFIX}"
    try:
        write_synced(path, digest + content, 0o600)
    except OSError as error:
        raise unavailable(error) from None
    return path


def _read(path: Path, chain_id: str) -> list[Archived]:
    data = path.read_bytes()
    digest, content = data[:_DIGEST], data[_DIGEST:]
    try:
        value = cbor_decode(content, _MAX_BYTES) if blake3_digest(content) == digest else None
    except EhrfastError:
        value = None
    if not (isinstance(value, tuple) and len(value) == 3 and value[0] == FORMAT):
        raise CorruptionError("archive.damaged", {"file": path.name})
    if not (isinstance(value[2], tuple) and all(map(_is_row, value[2]))):
        raise CorruptionError("archive.damaged", {"file": path.name})
    return [Archived(*row) for row in value[2]] if value[1] == chain_id else []


def _is_row(row: object) -> bool:
    if not (isinstance(row, tuple) and len(row) == len(_ROW)):
        return False
    sizes = (len(row[0]), len(row[3])) if isinstance(row[0], bytes) and isinstance(row[3], bytes) else ()
    return sizes == (_ID, _DIGEST) and all(map(isinstance, row, _ROW))
