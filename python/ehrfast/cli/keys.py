"""Commands for identities: who may act at this organisation, their keys in the node's custody."""

from __future__ import annotations

from typing import Annotated

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import Json, answer, answer_rows


def enrol(
    node: NodeFolder,
    name: Annotated[str, typer.Option("--name", help="Kept sealed in the key store, never on the chain.")],
    role: Annotated[str, typer.Option("--role", help="patient, physician, nurse, pharmacist, researcher, auditor …")],
    patient: Annotated[
        str | None, typer.Option("--patient", metavar="Patient/ID", help="For the role patient: their resource.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Enrol somebody, and print the identity they act under.

    \b
    Example: ehrfast keys enrol clinic.ehr --name physician-1 --role physician
    """
    from ehrfast.node import Node

    with Node.open(node) as opened:
        identity = opened.identities.enrol(name, role=role, patient=patient)
    value: dict[str, object] = {"identity": str(identity), "role": role, "organisation": identity.organisation.hex()}
    answer(value, as_json, [str(identity)])


def list_keys(node: NodeFolder, as_json: Json = False) -> None:
    """List the identities whose keys this node holds; as NDJSON with --json.

    \b
    Example: ehrfast keys list clinic.ehr
    """
    from ehrfast.node import Node

    with Node.open(node, read_only=True) as opened:
        rows = [{"identity": each.id.hex(), "role": each.role, "name": each.name} for each in opened.identities.all()]
    answer_rows(rows, as_json)
