"""The command that runs a witness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ehrfast.cli.output import Json, answer


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
