"""Commands that carry things out of a node: records with their evidence, and the log that others may check."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final
from urllib.parse import quote

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import As, Json, Purpose, answer, progress
from ehrfast.cli.records import open_session
from ehrfast.errors import ConflictError, CorruptionError

if TYPE_CHECKING:
    from ehrfast.access.session import Record
    from ehrfast.chain.chain import Chain

_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


def export(
    node: NodeFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    identity: As,
    purpose: Purpose,
    resource_type: Annotated[str | None, typer.Option("--type", help="One FHIR type; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write the records this identity may read as DIR/Type.ndjson, and evidence for each in DIR/evidence/Type/.

    The evidence discloses: keep it with the records. A record received over several lines is one line in the NDJSON;
    its bytes as received are then in DIR/received/Type/ as well, for they are what its evidence matches.

    \b
    Example: ehrfast export clinic.ehr out --as IDENTITY --purpose TREAT
    """
    _require_empty(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    with open_session(node, identity, purpose) as (opened, session), ExitStack() as files, progress("exporting") as bar:
        lines: dict[str, BinaryIO] = {}
        listed = session.list(resource_type)
        for number, row in enumerate(listed):
            record = session.read(row.reference, row.version)
            kind, name = _file_names(row.reference)
            if kind not in lines:
                lines[kind] = files.enter_context(_create(folder / f"{kind}.ndjson"))
            lines[kind].write(record.content.translate(_LINE_ENDS) + b"\n")
            _keep_received(folder / "received" / kind / f"{name}.json", record)
            evidence = folder / "evidence" / kind / f"{name}.proof"
            evidence.parent.mkdir(parents=True, exist_ok=True)
            session.prove(row.reference, row.version, disclose=True).save(evidence)
            counts[kind] = counts.get(kind, 0) + 1
            if bar is not None:
                bar(number + 1, len(listed))
        key = opened.verifier_key
    value: dict[str, object] = {
        "folder": str(folder),
        "resources": sum(counts.values()),
        "evidence": sum(counts.values()),
        "by_type": dict(sorted(counts.items())),
        "verifier_key": key,
    }
    answer(value, as_json)


def export_log(
    node: NodeFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one of an earlier export.")],
    as_json: Json = False,
) -> None:
    """Write the log as C2SP tiles with its checkpoint, or bring an earlier export up to date.

    The leaves hold hashes only; any web server can offer the folder. Works beside a running node.

    \b
    Example: ehrfast log export clinic.ehr tiles
    """
    from ehrfast.chain.tiles import export_tiles
    from ehrfast.node import Node

    with Node.open(node, read_only=True) as opened, progress("writing tiles") as bar:
        chain, key = opened.chain, opened.verifier_key
        entry_at = _entries(chain, chain.published.tree_size)
        checkpoint = export_tiles(chain.log, entry_at, chain.checkpoint, folder, progress=bar)
    value = {
        "folder": str(folder),
        "chain_id": checkpoint.origin,
        "tree_size": checkpoint.tree_size,
        "log_root": checkpoint.root.hex(),
        "verifier_key": key,
    }
    answer(value, as_json)


def _entries(chain: Chain, tree_size: int) -> Callable[[int], bytes]:
    """Leaves by ascending index, out of one pass over the blocks."""
    leaves = enumerate(chain.leaves(tree_size))

    def entry_at(index: int) -> bytes:
        for number, leaf in leaves:
            if number == index:
                return leaf
        raise CorruptionError("log.missing_leaf", {"index": index})

    return entry_at


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError("export.not_empty", {"folder": str(folder)})


def _file_names(reference: str) -> tuple[str, str]:
    """Folder and file name for a reference; an id cannot lead out of the folder."""
    kind, _, resource_id = reference.partition("/")
    return quote(kind, safe=""), quote(resource_id, safe="")


def _create(path: Path) -> BinaryIO:
    """A new file its owner alone may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _keep_received(path: Path, record: Record) -> None:
    if b"\n" in record.content or b"\r" in record.content:
        with _create(path) as target:
            target.write(record.content)
