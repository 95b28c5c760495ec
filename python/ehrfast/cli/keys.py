"""Commands for identities: who may act at this organisation, their keys in the node's custody."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import Json, answer, answer_bytes, answer_rows
from ehrfast.errors import ConflictError, InvalidInputError


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


class Rotated(StrEnum):
    """What can be rotated."""

    ROOT = "root"
    AT_REST = "atrest"
    CHECKPOINT = "checkpoint"


class Kept(StrEnum):
    """Where a root key is kept."""

    FILE = "file"
    ENVIRONMENT = "environment"
    PASSPHRASE = "passphrase"


def rotate(
    node: NodeFolder,
    what: Annotated[Rotated, typer.Argument(metavar="root|atrest|checkpoint", help="Which key.")],
    to: Annotated[
        Kept | None, typer.Option("--to", help="For root: where the new key comes from; as before by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a key of a node.

    root: what opens the key store. A new file is made and the old one destroyed; another kind is read from
    EHRFAST_NEW_ROOT_KEY or EHRFAST_NEW_PASSPHRASE, and belongs into EHRFAST_ROOT_KEY or EHRFAST_PASSPHRASE afterwards.
    Copies of the folder made before still need the old one.

    atrest: new keys for the key store, for the next segment of each log, and for the state database.

    checkpoint: what signs the log's checkpoints. Publish 'ehrfast keys history NODE' afterwards, and give it to each
    witness (ehrfast witness trust): the former key has signed there which key follows, and from which tree size.

    In a node that runs, call node.rotate_keys("root") and so on in its process: it need not stop.

    \b
    Example: ehrfast keys rotate clinic.ehr root
    """
    from ehrfast.node import Node

    if to is not None and what is not Rotated.ROOT:
        raise InvalidInputError("keys.no_source_wanted")
    try:
        opened = Node.open(node)
    except ConflictError as error:
        if error.code != "node.locked":
            raise
        raise ConflictError("keys.node_running", error.details) from None
    with opened:
        if what is Rotated.ROOT:
            source = opened.rotate_root_key(None if to is None else to.value)
            value: dict[str, object] = {"rotated": "root", "source": source.kind}
            if source.kind == "file":
                value["file"] = source.path
        elif what is Rotated.CHECKPOINT:
            opened.rotate_checkpoint_key()
            history = opened.key_history
            value = {
                "rotated": "checkpoint",
                "verifier_key": history.current.encode(),
                "from_tree_size": history.rotations[-1].tree_size,
            }
        else:
            value = {"rotated": "atrest", "generation": opened.rotate_at_rest()}
    answer(value, as_json)


def history(node: NodeFolder, as_json: Json = False) -> None:
    """Print the checkpoint keys a node has had, as signed statements that anyone can check evidence with.

    A file of it goes to 'ehrfast verify --history' and 'ehrfast witness trust --history'. It is empty while the first
    key is in force.

    \b
    Example: ehrfast keys history clinic.ehr > clinic.keys
    """
    from ehrfast.node import Node

    with Node.open(node, read_only=True) as opened:
        found = opened.key_history
    if not as_json:
        answer_bytes(found.render())
        return
    starts = [0, *(each.tree_size for each in found.rotations)]
    keys = [
        {"verifier_key": key.encode(), "from_tree_size": start} for key, start in zip(found.keys, starts, strict=True)
    ]
    statements = [each.note.decode() for each in found.rotations]
    answer({"chain_id": found.founding.name, "keys": keys, "statements": statements}, True)
