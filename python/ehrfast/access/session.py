"""A session: one identity, one purpose; every read and write of records goes through it."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from builtins import list as ListOf  # inside `Session` the name `list` is its method
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from ehrfast._core import SigningKey, random_bytes, split_resources
from ehrfast.access.gate import Gate, Principal
from ehrfast.access.write import RecordWriter
from ehrfast.chain.pending import PendingReceipt
from ehrfast.errors import ConflictError, DeniedError, InvalidInputError, NotFoundError, UnavailableError
from ehrfast.fhir.json import dumps, loads
from ehrfast.model.identity import PURPOSES, Identity
from ehrfast.model.proof import Evidence
from ehrfast.records.index.memory import Entry
from ehrfast.records.pieces import PIECE_BYTES, PieceReader
from ehrfast.records.placement import MAX_BINARY_BYTES

_FHIR_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[ -~]{1,200})?")
PAGE: Final = 1000
"""Records of a long read between two decisions, each with its own audit events."""


@dataclass(frozen=True, slots=True)
class ListedRecord:
    """One row of a list or a history; nothing of the content."""

    reference: str = field(repr=False)
    version: int
    patient: str | None = field(repr=False)
    record_class: str
    index: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """One version of a resource, opened for this session.

    Args:
        content: the bytes as they were received.
    """

    reference: str = field(repr=False)
    version: int
    index: int
    time: datetime
    content: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The content as FHIR JSON; decimals keep their digits."""
        return loads(self.content)


class Session:
    """Reads and writes records for one identity and purpose.

    Raises:
        InvalidInputError: ``purpose.unknown``.
        DeniedError: ``identity.unknown``.
    """

    def __init__(
        self, gate: Gate, writer: RecordWriter, identity: Identity, purpose: str, key: SigningKey | None
    ) -> None:
        if purpose not in PURPOSES:
            raise InvalidInputError("purpose.unknown", {"known": sorted(PURPOSES)})
        self._gate = gate
        self._writer = writer
        self._identity = identity
        self._purpose = purpose
        self._key = key
        self._open = True
        self._pid = os.getpid()
        gate.principal(identity.id)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False

    def __repr__(self) -> str:
        return f"Session({self._identity!r}, purpose={self._purpose})"

    def list(self, resource_type: str | None = None, *, limit: int | None = None) -> ListOf[ListedRecord]:
        """The newest versions this identity may know of, in the order they were first recorded.

        Args:
            resource_type: one FHIR type, or all of them.
            limit: at most so many.
        """
        return [row for page in self._pages(resource_type, limit) for row in page]

    def pages(self, resource_type: str | None = None) -> Iterator[ListOf[ListedRecord]]:
        """Like `list`, page by page; each page is decided and audited by itself."""
        return self._pages(resource_type, None)

    def history(self, reference: str) -> ListOf[ListedRecord]:
        """All versions of a record, newest first.

        Raises:
            NotFoundError: ``record.unknown``: there is none, or none this identity may know of.
        """
        principal = self._begin("history")
        entry = self._gate.find(principal, self._purpose, reference, None, "history")
        self._gate.audit_access(principal, self._purpose, "history", [entry], counted=False)
        return [self._listed(version) for version in reversed(self._gate.index.versions(reference))]

    def read(self, reference: str, version: int | None = None) -> Record:
        """One version, the newest by default.

        Raises:
            NotFoundError: ``record.unknown``: there is none, or none this identity may know of.
            DeniedError: ``access.not_a_reader``: this identity may read nothing at all.
            CorruptionError: the stored bytes are not what was recorded.
        """
        principal = self._begin("read")
        entry = self._gate.find(principal, self._purpose, reference, version, "read")
        row = self._gate.row(entry)
        self._gate.audit_access(principal, self._purpose, "read", [entry], counted=False)
        content = self._gate.open(entry, row).content
        return Record(reference, entry.version, entry.index, _time(entry.time_ms), content)

    def prove(
        self, reference: str, version: int | None = None, *, disclose: bool = False, quorum: int | None = None
    ) -> Evidence:
        """Evidence that this version was recorded, under the newest checkpoint.

        Args:
            disclose: adds the record's opening key, so that whoever holds evidence and resource can match them.
            quorum: how many witnesses must have cosigned the checkpoint; by default as many as can be reached.

        Raises:
            UnavailableError: ``checkpoint.quorum_missed``: too few witnesses have cosigned in time.
        """
        principal = self._begin("prove")
        entry = self._gate.find(principal, self._purpose, reference, version, "prove")
        row = self._gate.row(entry)
        self._gate.audit_access(principal, self._purpose, "prove", [entry], counted=False)
        opening_key = self._gate.open(entry, row, disclosing=True).opening_key if disclose else None
        keys = (("records", (entry.record_id, entry.version)), ("identity", ("identity", row.author)))
        return self._gate.chain.prove(keys, opening_key=opening_key, quorum=quorum)

    def create(self, resource: Mapping[str, Any] | bytes) -> PendingReceipt:
        """Records a new resource; one without id gets one.

        Raises:
            ConflictError: ``record.exists``.
        """
        content = _content(resource, new=True)
        return self._write(content, new=True)

    def update(self, resource: Mapping[str, Any] | bytes) -> PendingReceipt:
        """Records the next version of a resource.

        Raises:
            NotFoundError: ``record.unknown``.
            ConflictError: ``record.unchanged``: the bytes equal the newest version.
        """
        return self._write(_content(resource, new=False), new=False)

    def put_binary(
        self,
        stream: BinaryIO | Iterable[bytes],
        *,
        content_type: str,
        patient: str | None = None,
        resource_id: str | None = None,
    ) -> tuple[str, PendingReceipt]:
        """Records content of up to 2 GiB as a Binary, sealed as it comes in; memory stays at a few MiB.

        Args:
            stream: an open file, or the content in parts.
            content_type: its media type.
            patient: whose record it is (``securityContext``); the organisation's own without one.
            resource_id: of a Binary that gets its next version; a new one without it.

        Returns:
            ``Binary/id``, and the promise of its receipt.

        Raises:
            InvalidInputError: ``binary.content_type``, ``fhir.bad_id``, ``pieces.too_large``.
            NotFoundError: ``record.unknown``.
            UnavailableError: ``store.full``, ``store.io`` …; nothing was recorded.
        """
        self._require_open()
        if self._key is None:
            raise DeniedError("identity.key_not_held")
        if not _MEDIA_TYPE.fullmatch(content_type):
            raise InvalidInputError("binary.content_type")
        if resource_id is not None and not _FHIR_ID.fullmatch(resource_id):
            raise InvalidInputError("fhir.bad_id")
        self._gate.catch_up()
        if resource_id is not None:
            exists = self._gate.index.current(f"Binary/{resource_id}")
            principal = self._gate.principal(self._identity.id)
            if exists is not None and not self._gate.decide(principal, self._purpose, exists).permits:
                raise NotFoundError("record.unknown")
        _refuse_above_cap(stream)
        name = resource_id or random_bytes(16).hex()
        chunks = stream if isinstance(stream, Iterable) and not hasattr(stream, "read") else _chunks(stream)
        written = self._writer.write_stream(
            chunks, self._key, resource_id=name, content_type=content_type, patient=patient
        )
        return f"Binary/{name}", written.pending

    def open_binary(self, reference: str, version: int | None = None) -> BinaryContent:
        """The content of a Binary, however long; the audit of the read is durable before this returns.

        Raises:
            InvalidInputError: ``binary.not_a_binary``.
            NotFoundError, DeniedError: as `read`.
            CorruptionError: the stored bytes are not what was recorded; also from any read of the content.
        """
        if not reference.startswith("Binary/"):
            raise InvalidInputError("binary.not_a_binary")
        principal = self._begin("read")
        entry = self._gate.find(principal, self._purpose, reference, version, "read")
        row = self._gate.row(entry)
        self._gate.audit_access(principal, self._purpose, "read", [entry], counted=False)
        found = self._gate.open_pieces(entry, row)
        return found if isinstance(found, PieceReader) else _content_of(found.content)

    def _write(self, content: bytes, *, new: bool) -> PendingReceipt:
        self._require_open()
        if self._key is None:
            raise DeniedError("identity.key_not_held")
        resources = split_resources(content)
        if resources.kind != "resource":
            raise InvalidInputError("fhir.not_one_resource")
        incoming = self._writer.describe(resources)
        self._gate.catch_up()
        reference = incoming[0].reference
        exists = self._gate.index.current(reference)
        if new and exists is not None:
            raise ConflictError("record.exists")
        if not new:
            principal = self._gate.principal(self._identity.id)
            if exists is None or not self._gate.decide(principal, self._purpose, exists).permits:
                raise NotFoundError("record.unknown")
        written = self._writer.write(content, incoming, self._key)
        if written is None:
            raise ConflictError("record.unchanged")
        return written.pending

    def _pages(self, resource_type: str | None, limit: int | None) -> Iterator[ListOf[ListedRecord]]:
        principal = self._begin("search")
        gate = self._gate
        if "patient" in principal.roles and principal.roles == {"patient"} and principal.subject is not None:
            references = gate.index.of_subject(principal.subject, resource_type)
        else:
            references = gate.index.references(resource_type)
        left = len(references) if limit is None else limit
        for start in range(0, max(len(references), 1), PAGE):
            principal = gate.principal(self._identity.id)
            page = gate.permitted(principal, self._purpose, references[start : start + PAGE])[:left]
            gate.audit_access(principal, self._purpose, "search", page, counted=True)
            left -= len(page)
            yield [self._listed(entry) for entry in page]
            if left <= 0:
                return

    def _begin(self, interaction: Any) -> Principal:
        self._require_open()
        self._gate.chain.require_writable()  # no read answers whose audit could not be kept
        self._gate.catch_up()
        principal = self._gate.principal(self._identity.id)
        self._gate.require_reader(principal, self._purpose, interaction)
        return principal

    def _require_open(self) -> None:
        if os.getpid() != self._pid:
            raise UnavailableError("node.forked")
        if not self._open:
            raise InvalidInputError("session.closed")

    def _listed(self, entry: Entry) -> ListedRecord:
        subject = self._gate.subjects.by_id(entry.subject)
        patient = None if subject is None else subject.reference
        return ListedRecord(
            entry.reference, entry.version, patient, entry.record_class, entry.index, _time(entry.time_ms)
        )


def _content(resource: Mapping[str, Any] | bytes, *, new: bool) -> bytes:
    if isinstance(resource, bytes):
        return resource
    members = dict(resource)
    if new and "id" not in members:
        members["id"] = random_bytes(16).hex()
    return dumps(members)


def _time(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC)


def _refuse_above_cap(stream: Any) -> None:
    """A file says at once how much there is of it; whatever cannot say is counted while it is sealed."""
    try:
        left = os.fstat(stream.fileno()).st_size - stream.tell()
    except (AttributeError, OSError, ValueError):
        return
    if left > MAX_BINARY_BYTES:
        raise InvalidInputError("pieces.too_large", {"bytes": left, "most": MAX_BINARY_BYTES})


def _chunks(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(PIECE_BYTES):
        yield chunk


class WholeBinary(io.BytesIO):
    """The content of a Binary that was recorded as one resource, its data in base64."""

    def __init__(self, content: bytes, content_type: str) -> None:
        super().__init__(content)
        self.content_type = content_type
        self.size = len(content)

    def pieces(self) -> Iterator[bytes]:
        """What is left of the content, up to 1 MiB at a time."""
        while piece := self.read(PIECE_BYTES):
            yield piece


BinaryContent = PieceReader | WholeBinary
"""A readable file that knows its ``size``, its ``content_type``, and gives its ``pieces()``."""


def _content_of(resource: bytes) -> WholeBinary:
    members = loads(resource)
    try:
        content = base64.b64decode(str(members.get("data", "")), validate=True)
    except binascii.Error:
        raise InvalidInputError("binary.malformed_data") from None
    return WholeBinary(content, str(members.get("contentType", "application/octet-stream")))
