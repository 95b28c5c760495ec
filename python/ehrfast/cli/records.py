"""Commands that read records: always as somebody, for a purpose, and durable in the audit before they answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import As, Json, Purpose, answer_bytes, answer_rows, utc

if TYPE_CHECKING:
    from ehrfast.access.session import ListedRecord, Session
    from ehrfast.node import Node

Reference = Annotated[str, typer.Argument(metavar="Type/id", help="Which record.")]
Version = Annotated[int | None, typer.Option("--version", min=1, help="Which version; the newest by default.")]


@contextmanager
def open_session(folder: Path, identity: str, purpose: str) -> Iterator[tuple[Node, Session]]:
    """A node, and a session on it for the identity written as hex."""
    from ehrfast.node import Node

    with Node.open(folder) as node, node.session(node.identities.get(identity), purpose=purpose) as session:
        yield node, session


def get(
    node: NodeFolder,
    reference: Reference,
    identity: As,
    purpose: Purpose,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Write a record to standard output, byte for byte as it was received.

    With --json too: a FHIR resource is a JSON object already; only failures look different.

    \b
    Example: ehrfast get clinic.ehr Observation/42 --as IDENTITY --purpose TREAT > observation.json
    """
    with open_session(node, identity, purpose) as (_, session):
        content = session.read(reference, version).content
    answer_bytes(content)


def history(node: NodeFolder, reference: Reference, identity: As, purpose: Purpose, as_json: Json = False) -> None:
    """List all versions of a record, newest first.

    \b
    Example: ehrfast history clinic.ehr Observation/42 --as IDENTITY --purpose TREAT
    """
    with open_session(node, identity, purpose) as (_, session):
        rows = session.history(reference)
    answer_rows([row_of(each) for each in rows], as_json)


def list_records(
    node: NodeFolder,
    identity: As,
    purpose: Purpose,
    resource_type: Annotated[str | None, typer.Argument(metavar="TYPE", help="One FHIR type; all by default.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.")] = None,
    as_json: Json = False,
) -> None:
    """List the newest versions this identity may know of; as NDJSON with --json.

    \b
    Example: ehrfast list clinic.ehr Observation --as IDENTITY --purpose TREAT --json
    """
    with open_session(node, identity, purpose) as (_, session):
        rows = session.list(resource_type, limit=limit)
    answer_rows([row_of(each) for each in rows], as_json)


def row_of(listed: ListedRecord) -> dict[str, object]:
    """One row of a list or history."""
    return {
        "reference": listed.reference,
        "version": listed.version,
        "patient": listed.patient,
        "class": listed.record_class,
        "index": listed.index,
        "time": utc(listed.time),
    }
