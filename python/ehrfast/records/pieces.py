"""Content of any length, sealed in pieces into a blob and read back piece by piece, a few MiB in memory at most.

Before: a stream. After: a blob, and what its pack holds of it. A stream that breaks off leaves nothing that opens;
sealing it again draws a new key.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ehrfast._core import ClassKey, PieceOpener, PieceSealer, SealedPieces
from ehrfast.fhir.json import loads
from ehrfast.model.record import RecordRow
from ehrfast.records.blobs.store import BlobStore, Pieces

PIECE_BYTES: Final = 1024 * 1024
TAG_BYTES: Final = 16
_LEAD_BYTES: Final = 80
_COSE_ENCRYPT0: Final = 0xD0


def seal_stream(
    chunks: Iterable[bytes],
    head: bytes,
    key: ClassKey,
    store: BlobStore,
    *,
    origin: str,
    record_id: bytes,
    version: int,
    record_class: str,
) -> SealedPieces:
    """Seals a stream into a blob, durable when it returns.

    Args:
        chunks: the content as it comes.
        head: FHIR JSON of the Binary, without its data.

    Raises:
        InvalidInputError: ``pieces.too_large``: more than 2 GiB.
        UnavailableError: ``store.full``, ``store.io`` …
    """
    sealer = PieceSealer(head, origin=origin, record_id=record_id, version=version, class_=record_class)
    with store.writer() as blob:
        blob.write(sealer.front)
        for chunk in chunks:
            for start in range(0, len(chunk), PIECE_BYTES):
                if sealed := sealer.update(chunk[start : start + PIECE_BYTES]):
                    blob.write(sealed)
        last, pieces = sealer.finish([key])
        blob.write(last)
        blob.finish(pieces.item_digest)
    return pieces


def is_in_pieces(start: bytes) -> bool:
    """Whether a blob that begins so was sealed in pieces, rather than as one COSE_Encrypt0."""
    return start[:1] != bytes([_COSE_ENCRYPT0])


class PieceReader(io.RawIOBase):
    """The content of one blob in pieces, from its start to its end.

    Every piece is authenticated, its place and whether it is the last included, before a byte of it is given out; the
    whole is held against the state's commitment after the last.

    Raises:
        CorruptionError: ``blob.missing``, ``blob.damaged``, ``pieces.cannot_open`` …; from any read.
    """

    def __init__(
        self,
        store: BlobStore,
        digest: bytes,
        wraps: bytes,
        row: RecordRow,
        key: ClassKey,
        *,
        origin: str,
        record_id: bytes,
        version: int,
    ) -> None:
        super().__init__()
        total = store.size(digest) or 0
        start = store.get_range(digest, 0, min(total, _LEAD_BYTES))
        front_bytes = PieceOpener.front_bytes(start)
        front = store.get_range(digest, 0, front_bytes)
        self._opener = PieceOpener(
            front, wraps, key, origin=origin, record_id=record_id, version=version, class_=row.record_class
        )
        self.head = self._opener.head
        self._commitment = row.commitment or b""
        step = PIECE_BYTES + TAG_BYTES
        self._sealed = iter(Pieces(store, digest, front_bytes, total, step))
        self.size = total - front_bytes - TAG_BYTES * max(1, -(-(total - front_bytes) // step))
        self.opening_key: bytes | None = None
        self._left = memoryview(b"")

    @property
    def content_type(self) -> str:
        """The media type, as it was said when the content was put."""
        return str(self._described().get("contentType", "application/octet-stream"))

    def _described(self) -> dict[str, Any]:
        return loads(self.head)

    def pieces(self) -> Iterator[bytes]:
        """What is left of the content, up to 1 MiB at a time."""
        if self._left:
            yield bytes(self._left)
            self._left = memoryview(b"")
        while (piece := self._next()) is not None:
            yield piece

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as the piece at hand reaches; 0 at the end."""
        while not self._left:
            piece = self._next()
            if piece is None:
                return 0
            self._left = memoryview(piece)
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(self._left))
        room[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _next(self) -> bytes | None:
        found = next(self._sealed, None)
        if found is None:
            return None
        sealed, last = found
        content = self._opener.open(sealed, last)
        if last:
            self.opening_key = self._opener.finish(self._commitment)
        return content
