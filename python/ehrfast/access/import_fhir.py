"""Import: FHIR files become records. Bundles, single resources, NDJSON, gzip and folders; bytes and ids are kept.

A bad file or entry is listed with its code and the rest goes on. A Bundle is one transaction up to 700 records and
4 MiB; a larger one is split, and the report says so. Several transactions are under way at a time.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from ehrfast._core import Resources, SigningKey, split_ndjson, split_resources
from ehrfast.access.write import Incoming, RecordWriter, split
from ehrfast.chain.pending import PendingReceipt
from ehrfast.errors import ConflictError, EhrfastError, InvalidInputError, NotFoundError

SUFFIXES: Final = (".json", ".ndjson", ".json.gz", ".ndjson.gz", ".jsonl", ".jsonl.gz")
MAX_DOCUMENT_BYTES: Final = 1 << 30
NDJSON_BLOCK_BYTES: Final = 2 * 1024 * 1024
_UNDER_WAY: Final = 8


@dataclass(frozen=True, slots=True)
class Rejected:
    """One file or entry that was not taken.

    Args:
        file: as it was named.
        entry: its number in the Bundle, or None for the whole file.
        code: stable code.
        message: what to do about it.
    """

    file: str
    entry: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Args:
        resources: resources found and accepted, those already there included.
        unchanged: resources whose newest version already had the same bytes.
        transactions: transactions committed.
        split: documents that needed more than one transaction.
    """

    resources: int
    unchanged: int
    transactions: int
    split: int
    rejected: tuple[Rejected, ...] = field(repr=False)
    seconds: float

    @property
    def resources_per_second(self) -> float:
        """Resources by seconds."""
        return self.resources / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Part:
    file: str
    data: bytes
    incoming: Sequence[Incoming]
    pending: PendingReceipt


class Importer:
    """Imports documents under one author's key."""

    def __init__(self, writer: RecordWriter, key: SigningKey) -> None:
        self._writer = writer
        self._key = key
        self._under_way: deque[_Part] = deque()
        self._rejected: list[Rejected] = []
        self._resources = 0
        self._unchanged = 0
        self._transactions = 0
        self._split = 0

    def run(
        self, paths: Iterable[str | os.PathLike[str]], progress: Callable[[int, int], None] | None = None
    ) -> ImportReport:
        """Imports files and folders.

        Args:
            progress: called with (files done, files there).

        Raises:
            NotFoundError: ``import.no_such_file``, before anything is read.
            UnavailableError: the chain stopped writing; what was acknowledged stays.
        """
        started = monotonic()
        files = find_files(paths)
        for number, file in enumerate(files):
            try:
                for resources in read_documents(file):
                    self._take(str(file), resources)
            except InvalidInputError as error:
                self._reject(str(file), None, error)
            if progress is not None:
                progress(number + 1, len(files))
        self._drain(0)
        return ImportReport(
            self._resources,
            self._unchanged,
            self._transactions,
            self._split,
            tuple(self._rejected),
            monotonic() - started,
        )

    def _take(self, file: str, resources: Resources) -> None:
        for entry, code in resources.rejected():
            self._rejected.append(Rejected(file, entry, code, _MESSAGES.get(code, "see the code")))
        parts = split(self._writer.describe(resources))
        self._split += len(parts) > 1
        data = resources.data
        for incoming in parts:
            self._resources += len(incoming)
            self._submit(file, data, incoming)
            self._drain(_UNDER_WAY)

    def _submit(self, file: str, data: bytes, incoming: Sequence[Incoming]) -> None:
        written = self._writer.write(data, incoming, self._key)
        self._unchanged += len(incoming) - (0 if written is None else written.records)
        if written is not None:
            self._under_way.append(_Part(file, data, incoming, written.pending))

    def _drain(self, most: int) -> None:
        while len(self._under_way) > most:
            part = self._under_way.popleft()
            try:
                part.pending.result()
                self._transactions += 1
            except ConflictError:
                self._retry(part)
            except InvalidInputError as error:
                self._reject(part.file, None, error)
                self._resources -= len(part.incoming)

    def _retry(self, part: _Part) -> None:
        """Another writer was faster: the versions are counted again, once."""
        try:
            written = self._writer.write(part.data, part.incoming, self._key)
            if written is not None:
                written.pending.result()
                self._transactions += 1
        except (ConflictError, InvalidInputError) as error:
            self._reject(part.file, None, error)
            self._resources -= len(part.incoming)

    def _reject(self, file: str, entry: int | None, error: EhrfastError) -> None:
        self._rejected.append(Rejected(file, entry, error.code, _MESSAGES.get(error.code, str(error))))


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files to import: those named, and in folders those with a FHIR file's ending, in the order of their names.

    Raises:
        NotFoundError: ``import.no_such_file``.
    """
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
        elif path.is_file():
            found.append(path)
        else:
            raise NotFoundError("import.no_such_file", {"file": str(path)})
    return found


def read_documents(file: Path) -> Iterator[Resources]:
    """The documents of one file: one for JSON, blocks of lines for NDJSON.

    Raises:
        InvalidInputError: ``import.truncated_gzip``, ``import.not_gzip``, ``import.too_large`` or a code of the
        splitter.
    """
    zipped = file.name.endswith(".gz")
    lines = file.name.removesuffix(".gz").endswith((".ndjson", ".jsonl"))
    try:
        with gzip.open(file, "rb") if zipped else file.open("rb") as source:
            if lines:
                while block := source.readlines(NDJSON_BLOCK_BYTES):
                    yield split_ndjson(b"".join(block))
                return
            data = source.read(MAX_DOCUMENT_BYTES + 1)
    except EOFError:
        raise InvalidInputError("import.truncated_gzip") from None
    except (gzip.BadGzipFile, zlib.error):
        raise InvalidInputError("import.not_gzip") from None
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidInputError("import.too_large", {"limit": MAX_DOCUMENT_BYTES})
    yield split_resources(data)


_MESSAGES: Final = {
    "import.truncated_gzip": "the gzip file ends in the middle: copy it again",
    "import.not_gzip": "the file is not gzip although its name ends in .gz",
    "fhir.invalid_json": "not JSON: the offset in the details is where it stops making sense",
    "fhir.not_fhir": "no resourceType: this is not a FHIR resource",
    "fhir.resource_too_large": "a resource may have 16 MiB",
    "fhir.duplicate_full_url": "two entries of the Bundle have the same fullUrl",
}
