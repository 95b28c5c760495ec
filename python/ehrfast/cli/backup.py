"""Commands that carry a node away from its disk, and back: backup, prune, restore, and the key that opens them."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer.core import TyperGroup

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import Json, answer, progress, told, utc
from ehrfast.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from ehrfast.model.ask_witness import WitnessAddress

Target = Annotated[str, typer.Argument(metavar="TARGET", help="A folder on another disk.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="As 'ehrfast keys export' sealed it under a passphrase.")
]
Shares = Annotated[
    list[Path] | None, typer.Option("--share", metavar="FILE", help="One share of the key; repeat for each.")
]
Witnesses = Annotated[
    list[str] | None,
    typer.Option("--witness", metavar="URL,VKEY", help="Ask this witness too; may be repeated."),
]
Newest = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="The newest checkpoint you know of; it must be the head."),
]
_MAKE: Final = "make"


class BackupGroup(TyperGroup):
    """``ehrfast backup NODE TARGET`` makes a backup; the other words are commands of their own."""

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        """Whatever is no command is the node."""
        if args and args[0] not in self.commands:
            return super().resolve_command(ctx, [_MAKE, *args])
        return super().resolve_command(ctx, args)


def make(node: NodeFolder, target: Target, as_json: Json = False) -> None:
    """Back a node up, beside a running one too: 'ehrfast backup NODE TARGET'.

    Everything is sealed; what the target holds already is not copied again. To restore, the key is needed that
    'ehrfast keys export' gives out: keep it away from both the node and the target. Run this from a timer.

    \b
    Example: ehrfast backup clinic.ehr /mnt/other-disk/clinic
    """
    from ehrfast.node import Node

    with progress("backing up bytes") as bar:
        report = Node.backup_folder(node, target, progress=bar)
    value = {"target": target, **asdict(report)}
    value["expires"] = _utc(value.pop("expires_ms"))
    answer(value, as_json)


def prune(
    target: Target,
    node: Annotated[Path | None, typer.Option("--node", metavar="NODE", help="Take the key from this node.")] = None,
    key: KeyFile = None,
    share: Shares = None,
    as_json: Json = False,
) -> None:
    """Destroy the keys of backups past their retention, and delete what only they needed.

    The newest backup stays although it is old, unless something was erased since. What a lock still holds is counted
    under 'held'; run it again later.

    \b
    Example: ehrfast backup prune /mnt/other-disk/clinic --node clinic.ehr
    """
    from ehrfast.backup.prune import prune_backups
    from ehrfast.backup.target import open_target

    opened = open_target(target, _key_of(node, key, share), create=True)
    try:
        report = prune_backups(opened, time.time_ns() // 1_000_000)
    finally:
        opened.close()
    answer({"target": target, **asdict(report)}, as_json)


def confirm(
    node: NodeFolder, witness: Witnesses = None, checkpoint: Newest = None, as_json: Json = False
) -> None:
    """Let a restored node write again: a witness cosigns its head, or you show the newest checkpoint there is.

    Make sure that the node it was restored from is gone for good: two that write under one name are a fork.

    \b
    Example: ehrfast backup confirm clinic.ehr --checkpoint newest.checkpoint
    """
    from ehrfast.node import Node

    note = None if checkpoint is None else checkpoint.read_bytes()
    writable = Node.allow_writing(node, checkpoint=note, witnesses=_addresses(witness))
    answer({"node": str(node), "writable": writable}, as_json)


def restore(
    target: Target,
    node: Annotated[Path, typer.Argument(metavar="NODE", help="A new or empty folder.")],
    key: KeyFile = None,
    share: Shares = None,
    witness: Witnesses = None,
    checkpoint: Newest = None,
    vkey: Annotated[
        str | None, typer.Option("--vkey", metavar="VKEY", help="The node's verifier key, if you know it.")
    ] = None,
    height: Annotated[
        int | None, typer.Option("--height", metavar="HEIGHT", help="The newest backup of at most that height.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a node out of a backup, in a new folder under a root key of its own.

    Every part is checked and every root derived again; what was erased since does not come back. An older head than a
    witness knows is refused. The node opens for reading; for writing once a witness has cosigned its head here, or
    with --checkpoint, or later by 'ehrfast backup confirm'.

    The key comes from --share, once for each of the K shares, or from --key and the passphrase in
    EHRFAST_BACKUP_PASSPHRASE.

    \b
    Example: ehrfast restore TARGET new.ehr --share share-01.txt --share share-03.txt --share share-05.txt
    """
    from ehrfast.node import Node

    backup_root = _key_of(None, key, share)
    with progress("restoring") as bar:
        report = Node.restore(
            target,
            node,
            backup_root,
            max_height=height,
            vkey=vkey,
            witnesses=_addresses(witness),
            checkpoint=None if checkpoint is None else checkpoint.read_bytes(),
            progress=bar,
        )
    value = {"node": str(node), **asdict(report)}
    value["time"] = _utc(value.pop("time_ms"))
    if not report.writable:
        told("it opens for reading only; 'ehrfast backup confirm' lets it write")
    answer(value, as_json)


def export_key(
    node: NodeFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for shares, or a new file.")],
    shares: Annotated[
        int | None, typer.Option("--shares", metavar="N", help="How many shares to make, one a keeper.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", metavar="K", help="How many of them give the key back.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give out the key that opens this node's backups: K of N shares (SLIP-0039), or one file under a passphrase.

    It opens every backup in every target of this node, and nothing without one. With --shares and --threshold OUT gets
    one file a keeper; fewer than K of them tell nothing. Else OUT is one file, sealed under the passphrase in
    EHRFAST_BACKUP_PASSPHRASE.

    \b
    Example: ehrfast keys export clinic.ehr shares --shares 5 --threshold 3
    """
    from ehrfast.keys.backup_key import write_sealed, write_shares
    from ehrfast.node import Node

    backup_root = Node.backup_root_key(node)
    value: dict[str, object] = {"node": str(node), "out": str(out)}
    if shares is not None or threshold is not None:
        if shares is None or threshold is None:
            raise InvalidInputError("shares.out_of_range", {"threshold": threshold, "shares": shares})
        files = write_shares(out, backup_root, threshold=threshold, shares=shares)
        value |= {"kind": "shares", "shares": shares, "threshold": threshold, "files": [each.name for each in files]}
    else:
        write_sealed(out, backup_root, _passphrase())
        value |= {"kind": "passphrase", "shares": None, "threshold": None, "files": [out.name]}
    answer(value, as_json)


def _key_of(node: Path | None, key: Path | None, shares: list[Path] | None) -> bytes:
    from ehrfast.keys.backup_key import combine_shares, read_sealed
    from ehrfast.node import Node

    if sum(each is not None for each in (node, key, shares or None)) != 1:
        raise InvalidInputError("backup_key.one_source")
    if shares:
        return combine_shares(shares)
    if key is not None:
        return read_sealed(key, _passphrase())
    return Node.backup_root_key(node or Path())


def _passphrase() -> str:
    from ehrfast.keys.backup_key import PASSPHRASE_VARIABLE

    if not os.environ.get(PASSPHRASE_VARIABLE):
        raise NotFoundError("backup_key.missing_passphrase", {"variable": PASSPHRASE_VARIABLE})
    return os.environ[PASSPHRASE_VARIABLE]


def _addresses(given: list[str] | None) -> list[WitnessAddress]:
    from ehrfast.model.ask_witness import WitnessAddress

    pairs = (each.partition(",") for each in given or ())
    return [WitnessAddress(url, vkey) for url, _, vkey in pairs]


def _utc(time_ms: int) -> str:
    return utc(datetime.fromtimestamp(time_ms / 1000, tz=UTC))
