"""Commands on consents: what a set of them says to a request, without a node, a key or a network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ehrfast.cli.failure import EXIT_CODES
from ehrfast.cli.output import Json, answer, answer_rows, utc
from ehrfast.errors import InvalidInputError
from ehrfast.policy.answer import answer_of
from ehrfast.policy.decide import Policies, decide
from ehrfast.policy.fhir import read_consents
from ehrfast.policy.request import read_now, read_request

Row = dict[str, object]


def decide_request(
    policies: Annotated[
        Path | None, typer.Option("--policies", metavar="FILE", help="FHIR R4 Consents: an array or a Bundle.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option("--request", metavar="FILE", help="Who asks for what and why; see docs/consent.md.")
    ] = None,
    now: Annotated[
        str | None, typer.Option("--now", metavar="ISO", help="The moment it is judged at; the clock's by default.")
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option("--batch", metavar="FILE", help="NDJSON of {policies, request, now} instead; answers NDJSON."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what consents say to a request: permit, deny, or no_consent and what the site's policy gives.

    Exits with 0 for every decision and with 8 for a request that is none. In a batch such a line is answered by its
    error, and the others by their decisions.

    \b
    Example: ehrfast consent decide --policies consents.json --request request.json --now 2026-06-30T12:00:00Z --json
    """
    if batch is not None:
        if policies is not None or request is not None:
            raise typer.BadParameter("--batch stands alone")
        rows, whole = _decide_lines(batch.read_bytes().splitlines())
        answer_rows(rows, True)
        if not whole:
            raise typer.Exit(EXIT_CODES[InvalidInputError])
        return
    if policies is None or request is None:
        raise typer.BadParameter("--policies FILE and --request FILE, or --batch FILE")
    moment = utc(datetime.now(UTC)) if now is None else now
    answer(_decide(_read(policies.read_bytes()), _read(request.read_bytes()), moment), as_json)


def _decide_lines(lines: Iterable[bytes]) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    whole = True
    for line in lines:
        if not line.strip():
            continue
        try:
            case = _read(line)
            if not isinstance(case, dict):
                raise InvalidInputError("request.malformed", {"path": ""})
            rows.append(_decide(case.get("policies"), case.get("request"), case.get("now")))
        except InvalidInputError as error:
            whole = False
            rows.append({"error": {"code": error.code, "message": str(error), "details": dict(error.details)}})
    return rows, whole


def _decide(policies: object, request: object, now: object) -> Row:
    asked, site = read_request(request, read_now(now))
    return answer_of(decide(Policies(read_consents(policies)), asked, site))


def _read(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidInputError("request.not_json") from None
