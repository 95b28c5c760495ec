"""Commands for content too large for a resource: sealed and opened as it streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import As, Json, Progress, Purpose, answer, progress
from ehrfast.cli.records import Reference, Version, open_session
from ehrfast.errors import InvalidInputError

_CHUNK_BYTES = 1024 * 1024


def put(
    node: NodeFolder,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The content; - reads standard input.")],
    content_type: Annotated[str, typer.Option("--type", metavar="MEDIA/TYPE", help="Its media type.")],
    identity: As,
    purpose: Purpose,
    patient: Annotated[
        str | None, typer.Option("--patient", metavar="Patient/id", help="Whose it is; the organisation's by default.")
    ] = None,
    resource_id: Annotated[str | None, typer.Option("--id", help="Of the Binary; a new one by default.")] = None,
    as_json: Json = False,
) -> None:
    """Record content of up to 2 GiB as a Binary, sealed piece by piece; nothing is kept if it breaks off.

    \b
    Example: ehrfast binary put clinic.ehr scan.dcm --type application/dicom --patient Patient/1 --as ID --purpose TREAT
    """
    from ehrfast.records.placement import MAX_BINARY_BYTES

    path = None if file == "-" else Path(file)
    try:
        source: BinaryIO = sys.stdin.buffer if path is None else path.open("rb")
        total = 0 if path is None else path.stat().st_size
    except OSError:
        raise InvalidInputError("binary.unreadable") from None
    if total > MAX_BINARY_BYTES:
        source.close()
        raise InvalidInputError("pieces.too_large", {"bytes": total, "most": MAX_BINARY_BYTES})
    with source, open_session(node, identity, purpose) as (_, session), progress("sealing bytes") as bar:
        counted = _Counted(source, total, bar)
        reference, pending = session.put_binary(
            counted.chunks(), content_type=content_type, patient=patient, resource_id=resource_id
        )
        receipt = pending.result()
    answer({"reference": reference, "bytes": counted.done, "index": receipt.index}, as_json)


def get(
    node: NodeFolder,
    reference: Reference,
    identity: As,
    purpose: Purpose,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A new file for the content.")],
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Write the content of a Binary to a new file; every piece is checked, and a file that fails a check is removed.

    \b
    Example: ehrfast binary get clinic.ehr Binary/42 --as IDENTITY --purpose TREAT -o scan.dcm
    """
    if output.exists():
        raise InvalidInputError("binary.file_exists")
    with open_session(node, identity, purpose) as (_, session), progress("opening bytes") as bar:
        content = session.open_binary(reference, version)
        done = 0
        try:
            with output.open("xb") as target:
                for piece in content.pieces():
                    target.write(piece)
                    done += len(piece)
                    if bar is not None:
                        bar(done, content.size)
        except BaseException:
            output.unlink(missing_ok=True)
            raise
    answer({"reference": reference, "content_type": content.content_type, "bytes": done, "file": str(output)}, as_json)


class _Counted:
    def __init__(self, source: BinaryIO, total: int, bar: Progress | None) -> None:
        self._source = source
        self._total = total
        self._bar = bar
        self.done = 0

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._source.read(_CHUNK_BYTES):
            self.done += len(chunk)
            if self._bar is not None:
                self._bar(self.done, max(self._total, self.done))
            yield chunk
