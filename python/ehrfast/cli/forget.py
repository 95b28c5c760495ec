"""Commands that take things away: erasing, pruning and retrieving, and the legal holds that forbid it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import Json, answer, answer_rows
from ehrfast.errors import InvalidInputError

Patient = Annotated[
    str | None, typer.Option("--patient", metavar="Patient/ID", help="A patient and all that is theirs.")
]
Record = Annotated[str | None, typer.Option("--record", metavar="Type/id", help="One record, all versions.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and change nothing.")]


def erase(
    node: NodeFolder, patient: Patient = None, record: Record = None, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Erase a patient or a record for good: no byte of this node opens to anything of it afterwards.

    The chain records it, so that the log still verifies; a legal hold forbids it with exit code 3. Backups made before
    hold keys until their retention ends. Reading what was erased answers as if it had never been.

    \b
    Example: ehrfast erase clinic.ehr --patient Patient/42 --dry-run
    """
    from ehrfast.node import Node

    if (patient is None) == (record is None):
        raise InvalidInputError("erasure.one_target")
    with Node.open(node, read_only=dry_run) as opened:
        if dry_run:
            plan = opened.plan_erasure(record=record, patient=patient)
            answer({"dry_run": True, **asdict(plan)}, as_json)
            return
        report = opened.erase_record(record) if record is not None else opened.erase_patient(patient or "")
    answer({"dry_run": False, **asdict(report)}, as_json)


def prune(
    node: NodeFolder,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="JSON: keep_versions, older_than_days, classes …")
    ] = None,
    keep_versions: Annotated[
        int | None, typer.Option("--keep-versions", min=0, help="The newest so many of each record stay.")
    ] = None,
    older_than: Annotated[
        int | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Only versions recorded longer ago.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option("--archive", metavar="DIR", help="Keep the sealed bytes there first.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the bytes of old versions go; every proof stays valid, theirs too.

    Current versions stay unless a policy file says "current": true; audit events and what a legal hold covers always
    stay. Without --archive the bytes are gone for good.

    \b
    Example: ehrfast prune clinic.ehr --keep-versions 2 --older-than 365 --archive /srv/archive
    """
    from ehrfast.access.prune import PrunePolicy
    from ehrfast.node import Node

    by_option = keep_versions is not None or older_than is not None
    if (policy is not None) == by_option:
        raise InvalidInputError("prune.one_policy")
    by_words = PrunePolicy(1 if keep_versions is None else keep_versions, older_than or 0) if policy is None else None
    chosen = by_words or PrunePolicy.load(policy or Path())
    with Node.open(node, read_only=dry_run) as opened:
        report = opened.prune(chosen, archive=archive, dry_run=dry_run)
    answer({"dry_run": dry_run, **asdict(report)}, as_json)


def retrieve(
    node: NodeFolder,
    archive: Annotated[Path, typer.Argument(metavar="DIR", help="Where 'prune --archive' put them.")],
    record: Record = None,
    as_json: Json = False,
) -> None:
    """Put pruned versions back into the log, each checked against the digest that stayed there.

    What was erased since is not taken back.

    \b
    Example: ehrfast retrieve clinic.ehr /srv/archive --record Observation/42
    """
    from ehrfast.node import Node

    with Node.open(node) as opened:
        report = opened.retrieve(archive, record=record)
    answer(asdict(report), as_json)


def add_hold(
    node: NodeFolder,
    reason: Annotated[
        str, typer.Option("--reason", help="litigation, investigation, regulator, complaint, safety or other.")
    ],
    patient: Patient = None,
    record: Record = None,
    as_json: Json = False,
) -> None:
    """Place a legal hold: nothing it covers is erased or pruned until it is released.

    \b
    Example: ehrfast hold add clinic.ehr --patient Patient/42 --reason litigation
    """
    from ehrfast.node import Node

    with Node.open(node) as opened:
        hold = opened.holds.add(reason=reason, record=record, patient=patient)
    answer(asdict(hold), as_json, [hold.id])


def release_hold(
    node: NodeFolder,
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="32 hex digits, as 'ehrfast hold list' shows them.")],
    as_json: Json = False,
) -> None:
    """Release a legal hold.

    \b
    Example: ehrfast hold release clinic.ehr HOLD
    """
    from ehrfast.node import Node

    with Node.open(node) as opened:
        opened.holds.release(hold)
    answer({"released": hold}, as_json)


def list_holds(node: NodeFolder, as_json: Json = False) -> None:
    """List the legal holds that stand; as NDJSON with --json.

    \b
    Example: ehrfast hold list clinic.ehr
    """
    from ehrfast.node import Node

    with Node.open(node, read_only=True) as opened:
        rows = [asdict(each) for each in opened.holds.standing()]
    answer_rows(rows, as_json)
