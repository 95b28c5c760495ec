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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import BinaryIO, Final, cast

from ehrfast._core import Resources, SigningKey, split_ndjson, split_resources
from ehrfast.access.write import Incoming, RecordWriter, split
from ehrfast.chain.pending import PendingReceipt
from ehrfast.errors import ConflictError, EhrfastError, InvalidInputError, NotFoundError

SUFFIXES: Final = (".json", ".ndjson", ".json.gz", ".ndjson.gz", ".jsonl", ".jsonl.gz")
MAX_DOCUMENT_BYTES: Final = 1 << 30
NDJSON_BLOCK_BYTES: Final = 2 * 1024 * 1024
MAX_LINE_BYTES: Final = 32 * 1024 * 1024
"""What is kept of one NDJSON line; no resource comes near it, and an endless line must not fill the memory."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UNDER_WAY: Final = 8


@dataclass(frozen=True, slots=True)
class Rejected:
    """One file or entry that was not taken.

    Args:
        file: as it was named; not in the repr, as file names often hold a patient's.
        entry: its number in the Bundle, or None for the whole file.
        code: stable code.
        message: what to do about it.
    """

    file: str = field(repr=False)
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
        files = self._find(paths)
        failed: Path | None = None
        for number, file, found in _one_ahead(_read_all(files)):
            if isinstance(found, InvalidInputError):
                if failed is not file:
                    self._reject(str(file), None, found)
            elif found is None:
                if progress is not None:
                    progress(number, len(files))
            elif failed is not file:
                try:
                    self._take(str(file), *found)
                except InvalidInputError as error:
                    failed = file
                    self._reject(str(file), None, error)
        self._drain(0)
        return ImportReport(
            self._resources,
            self._unchanged,
            self._transactions,
            self._split,
            tuple(self._rejected),
            monotonic() - started,
        )

    def _find(self, paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
        found: list[Path] = []
        for path, files in find_files(paths):
            if not files:
                self._reject(str(path), None, InvalidInputError("import.no_fhir_files"))
            found += files
        return found

    def _take(self, file: str, first_entry: int, resources: Resources | None) -> None:
        if resources is None:
            self._reject(file, first_entry, InvalidInputError("fhir.resource_too_large"))
            return
        for entry, code in resources.rejected():
            self._rejected.append(Rejected(file, first_entry + entry, code, _MESSAGES.get(code, "see the code")))
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


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, list[Path]]]:
    """The files to import, by the path they were found at: the file itself, or what ends like a FHIR file in a folder.

    Raises:
        NotFoundError: ``import.no_such_file``, with the position of the path; its name could be a patient's.
    """
    found: list[tuple[Path, list[Path]]] = []
    for position, name in enumerate(paths):
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
            found.append((path, inside))
        elif path.is_file():
            found.append((path, [path]))
        else:
            raise NotFoundError("import.no_such_file", {"position": position})
    return found


_Document = tuple[int, Resources | None]
_Found = tuple[int, Path, _Document | InvalidInputError | None]
"""The number of a file from 1, the file, and a document of it, what is wrong with it, or None at its end."""


def _read_all(files: Sequence[Path]) -> Iterator[_Found]:
    for number, file in enumerate(files, 1):
        try:
            for document in read_documents(file):
                yield number, file, document
        except InvalidInputError as error:
            yield number, file, error
        yield number, file, None


def _one_ahead(found: Iterator[_Found]) -> Iterator[_Found]:
    """The same, the next read, unzipped and split on another thread meanwhile; all of that runs without the GIL."""
    with ThreadPoolExecutor(1, "ehrfast-import") as reader:
        following = reader.submit(next, found, None)
        while (present := following.result()) is not None:
            following = reader.submit(next, found, None)
            yield present


def read_documents(file: Path) -> Iterator[tuple[int, Resources | None]]:
    """The documents of one file, each with the number of its first entry: one for JSON, blocks of lines for NDJSON.

    None stands for a line that is longer than any resource may be.

    Raises:
        InvalidInputError: ``import.empty_file``, ``import.not_gzip``, ``import.truncated_gzip``,
            ``import.damaged_gzip``, ``import.unreadable``, ``import.byte_order_mark``, ``import.too_large``
            or a code of the splitter.
    """
    lines = file.name.removesuffix(".gz").endswith((".ndjson", ".jsonl"))
    try:
        with _open(file) as source:
            if lines:
                for first_line, block in _blocks(source):
                    yield first_line, None if block is None else split_ndjson(block)
                return
            data = source.read(MAX_DOCUMENT_BYTES + 1)
    except EOFError:
        raise InvalidInputError("import.truncated_gzip") from None
    except (gzip.BadGzipFile, zlib.error):
        raise InvalidInputError("import.damaged_gzip") from None
    except OSError as error:
        raise InvalidInputError("import.unreadable", {"errno": error.errno}) from None
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidInputError("import.too_large", {"limit": MAX_DOCUMENT_BYTES})
    if not data:
        raise InvalidInputError("import.empty_file")
    if data.startswith(_BYTE_ORDER_MARK):
        raise InvalidInputError("import.byte_order_mark")
    yield 0, split_resources(data)


def _open(file: Path) -> BinaryIO:
    if not file.name.endswith(".gz"):
        return file.open("rb")
    with file.open("rb") as stored:
        head = stored.read(len(_GZIP_MAGIC))
    if not head:
        raise InvalidInputError("import.empty_file")
    if not _GZIP_MAGIC.startswith(head):
        raise InvalidInputError("import.not_gzip")
    return cast(BinaryIO, gzip.open(file, "rb"))


def _blocks(source: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Whole lines, some MiB at a time, with the number of the first; None stands for one line too long to be kept."""
    line, kept, overlong = 0, b"", False
    while piece := source.read(NDJSON_BLOCK_BYTES):
        end = piece.rfind(b"\n") + 1
        if not end:
            overlong = overlong or len(kept) + len(piece) > MAX_LINE_BYTES
            kept = b"" if overlong else kept + piece
            continue
        start = 0
        if overlong:
            yield line, None
            line, start, overlong = line + 1, piece.index(b"\n") + 1, False
        block, kept = kept + piece[start:end], piece[end:]
        yield line, block
        line += block.count(b"\n")
    if kept or overlong:
        yield line, None if overlong else kept


_MESSAGES: Final = {
    "import.truncated_gzip": "the gzip file ends in the middle: copy it again",
    "import.not_gzip": "the file is not gzip although its name ends in .gz",
    "import.damaged_gzip": "the gzip file's check does not match: copy it again",
    "import.unreadable": "the file could not be read",
    "import.empty_file": "the file is empty",
    "import.byte_order_mark": "the file begins with a byte order mark: save it as UTF-8 without one",
    "import.too_large": "a JSON file may have 1 GiB: write it as NDJSON",
    "import.no_fhir_files": "no file in this folder ends like a FHIR file: .json, .ndjson, .jsonl, each also with .gz",
    "fhir.invalid_json": "not JSON: the offset in the details is where it stops making sense",
    "fhir.not_fhir": "no resourceType: this is not a FHIR resource",
    "fhir.resource_too_large": "a resource may have 16 MiB",
    "fhir.unknown_type": "no resource of FHIR R4 has this type",
    "fhir.invalid_utf8": "the file is not UTF-8 throughout",
    "fhir.too_deep": "a resource may be nested 64 levels deep",
    "fhir.duplicate_full_url": "two entries of the Bundle have the same fullUrl",
}
