"""Commands that run a witness, and that tell a node which witnesses to ask."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import Json, answer, answer_rows, utc

if TYPE_CHECKING:
    from ehrfast.chain.cosign import WitnessState


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The witness's folder; a new one gets a new key.")],
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="VKEY", help="A log to know; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="How a new witness signs.")] = None,
    as_json: Json = False,
) -> None:
    """Run a witness (C2SP tlog-witness) until it is interrupted.

    It remembers the newest checkpoint of each log and refuses a shorter or another history. Prints where it listens
    and its verifier key once it is ready. Run it where the log's operator has no hand.

    \b
    Example: ehrfast witness run witness --log "$VKEY" --port 8700
    """
    from ehrfast.witness import run_witness

    def ready(url: str, vkey: str) -> None:
        answer({"url": url, "verifier_key": vkey}, as_json)

    run_witness(folder, host, port, name=name, logs=log or (), ready=ready)


def trust(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The witness's folder; it may be running.")],
    history: Annotated[Path, typer.Option("--history", metavar="FILE", help="What 'ehrfast keys history' printed.")],
    as_json: Json = False,
) -> None:
    """Let a log that the witness knows sign with its new key, and no more with its former ones.

    Each key in the history must have signed which one follows, from one that the witness knows on.

    \b
    Example: ehrfast witness trust witness --history clinic.keys
    """
    from ehrfast.witness import follow_log

    answer({"log": follow_log(folder, history.read_bytes())}, as_json)


def add(
    node: NodeFolder,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the witness listens.")],
    vkey: Annotated[str, typer.Option("--vkey", metavar="VKEY", help="The witness's verifier key.")],
    as_json: Json = False,
) -> None:
    """Let a witness cosign a node's checkpoints, and ask it once.

    The witness must know the node's verifier key, see 'ehrfast witness run --log'. One that cannot be reached is asked
    again later and stops nothing; 'failure' names what the last request met.

    \b
    Example: ehrfast witness add clinic.ehr --url http://127.0.0.1:8700 --vkey "$WITNESS"
    """
    from ehrfast.node import Node

    with Node.open(node) as opened:
        state = opened.add_witness(url, vkey)
    answer(_row(state), as_json)


def drop(
    node: NodeFolder,
    vkey: Annotated[str, typer.Option("--vkey", metavar="VKEY", help="The witness's verifier key.")],
    as_json: Json = False,
) -> None:
    """Ask a witness no more, also one that keeps the node from opening.

    First make sure that the folder is no older copy: a witness that has seen more of the log says so for a reason.

    \b
    Example: ehrfast witness drop clinic.ehr --vkey "$WITNESS"
    """
    from ehrfast.node import Node

    Node.drop_witness(node, vkey)
    answer({"dropped": vkey}, as_json)


def list_witnesses(node: NodeFolder, as_json: Json = False) -> None:
    """List the witnesses a node asks, with the newest checkpoint each has cosigned.

    \b
    Example: ehrfast witness list clinic.ehr
    """
    from ehrfast.node import Node

    with Node.open(node, read_only=True) as opened:
        states = opened.witnesses()
    answer_rows([_row(each) for each in states], as_json)


def _row(state: WitnessState) -> dict[str, object]:
    time = None if state.time is None else utc(state.time)
    return {**asdict(state), "time": time}
