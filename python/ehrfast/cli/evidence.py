"""Commands for proofs: a node makes them, anyone checks them; the check opens no node and needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import As, Json, Purpose, answer, utc
from ehrfast.cli.records import Reference, Version, open_session
from ehrfast.model import proof


def prove(
    node: NodeFolder,
    reference: Reference,
    identity: As,
    purpose: Purpose,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the evidence goes.")],
    version: Version = None,
    disclose: Annotated[
        bool, typer.Option("--disclose", help="Add the record's opening key, so that the resource can be matched.")
    ] = False,
    quorum: Annotated[
        int | None,
        typer.Option("--quorum", min=0, help="How many witnesses must cosign; those that can be reached by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write evidence that a record was recorded, under the newest checkpoint.

    Without --disclose it tells nothing of the content. With it, guard the file like the resource itself.

    \b
    Example: ehrfast prove clinic.ehr Observation/42 --as IDENTITY --purpose TREAT --disclose -o bp.proof
    """
    with open_session(node, identity, purpose) as (opened, session):
        evidence = session.prove(reference, version, disclose=disclose, quorum=quorum)
        key = opened.verifier_key
    evidence.save(output)
    value = {"file": str(output), "bytes": len(evidence.text), "disclosed": disclose, "verifier_key": key}
    answer(value, as_json)


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The evidence.")],
    key: Annotated[str, typer.Option("--key", metavar="VKEY", help="The chain's verifier key, from a trusted source.")],
    resource: Annotated[
        Path | None, typer.Option("--resource", metavar="FILE", help="The resource as received, to be matched as well.")
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", metavar="VKEY", help="A witness you trust; may be repeated.")
    ] = None,
    quorum: Annotated[
        int | None, typer.Option("--quorum", min=0, help="How many of them must have cosigned; all by default.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option("--history", metavar="FILE", help="The chain's key history; --key may then be any key in it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check evidence without a node.

    Exits with 1 and names the first check that failed. --resource needs evidence made with --disclose.

    \b
    Example: ehrfast verify bp.proof --key "$VKEY" --resource observation.json
    """
    content = None if resource is None else resource.read_bytes()
    checked = proof.verify(file, key=key, content=content, witnesses=witness or (), quorum=quorum, history=history)
    value = {
        "ok": True,
        "chain_id": checked.chain_id,
        "tree_size": checked.tree_size,
        "index": checked.index,
        "height": checked.height,
        "time": utc(checked.time),
        "as_of": utc(checked.as_of),
        "record_id": checked.record_id.hex(),
        "version": checked.version,
        "class": checked.record_class,
        "author": checked.author.hex(),
        "custody": checked.custody,
        "content_matches": checked.content_matches,
    }
    answer(value, as_json)
