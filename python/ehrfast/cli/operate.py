"""Commands for whoever runs a node: make it, fill it, look at it, check it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehrfast.cli.failure import Failure, report
from ehrfast.cli.output import Json, Progress, answer, progress, told, utc
from ehrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from ehrfast.chain.fsck import FsckReport
    from ehrfast.node import Node

NodeFolder = Annotated[Path, typer.Argument(metavar="NODE", help="Folder of the node.")]
CORRUPTION = 7


def init(
    node: NodeFolder,
    organisation: Annotated[str, typer.Option("--organisation", metavar="NAME", help="Name of the organisation.")],
    chain: Annotated[str, typer.Option("--chain", help="Name of its chain: 1 to 17 of a-z 0-9 -.")] = "main",
    as_json: Json = False,
) -> None:
    """Make a node in a new folder.

    Its root key comes from EHRFAST_ROOT_KEY (64 hex digits) or EHRFAST_PASSPHRASE; without either it is a new file
    NODE/root.key: whoever has that file and the folder can read every record, and without it nobody can.

    \b
    Example: ehrfast init clinic.ehr --organisation "Clinic North"
    """
    from ehrfast.node import Node

    with Node.create(node, organisation=organisation, chain=chain) as made:
        told("without a backup and the exported key that opens it, a lost disk is lost data:")
        told(f"  ehrfast backup {node} TARGET; ehrfast keys export {node} SHARES --shares 5 --threshold 3")
        answer(describe(made), as_json)


def status(node: NodeFolder, as_json: Json = False) -> None:
    """Show how a node stands, beside a running one too.

    Keep the verifier key and a checkpoint elsewhere: with them anyone can see later whether history was rewritten.

    \b
    Example: ehrfast status clinic.ehr --json
    """
    from ehrfast.node import Node

    with progress("reading blocks") as bar, Node.open(node, read_only=True, progress=bar) as opened:
        value = describe(opened)
    answer(value, as_json)


def describe(node: Node) -> dict[str, object]:
    """The members `init` and `status` answer with."""
    value = asdict(node.status())
    return {**value, "cosignatures": [{**each, "time": utc(each["time"])} for each in value["cosignatures"]]}


def import_files(
    node: NodeFolder,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="FHIR files, or folders of them.")],
    as_json: Json = False,
) -> None:
    """Import FHIR R4 files: Bundles, single resources, NDJSON, each also gzipped.

    Bytes and ids are kept as received, and what is there already makes no second version. A bad file or entry is
    listed under 'rejected' with its code while the rest goes on; the exit code is 0 even then.

    \b
    Example: ehrfast import clinic.ehr patients/ more.ndjson.gz
    """
    from ehrfast.node import Node

    with Node.open(node) as opened:
        with progress("importing files") as bar:
            report_of = opened.import_fhir(*paths, progress=bar)
        tree_size = opened.chain.published.tree_size
    value = {
        "resources": report_of.resources,
        "transactions": report_of.transactions,
        "rejected": [asdict(each) for each in report_of.rejected],
        "seconds": round(report_of.seconds, 6),
        "resources_per_second": round(report_of.resources_per_second, 1),
        "tree_size": tree_size,
        "unchanged": report_of.unchanged,
        "split": report_of.split,
    }
    if as_json:
        answer(value, True)
        return
    for each in report_of.rejected:
        place = each.file if each.entry is None else f"{each.file} entry {each.entry}"
        told(f"rejected {place}: {each.message} [{each.code}]")
    answer({**value, "rejected": len(report_of.rejected)}, False)


def fsck(node: NodeFolder, as_json: Json = False) -> None:
    """Derive every hash, root, signature and state value again from the bytes on disk.

    Exits with 7 when it finds a fault; the faults are listed on standard output all the same. Beside a running node
    the block log is checked, and the state as the log gives it.

    \b
    Example: ehrfast fsck clinic.ehr --json
    """
    found = _check(node)
    ok, blocks, transactions = found.ok, found.blocks, found.transactions
    faults, erased = [asdict(each) for each in found.faults], asdict(found.erased)
    if as_json:
        counts = {"blocks": blocks, "transactions": transactions, "blobs": found.blobs, "pruned": found.pruned}
        answer({"ok": ok, "faults": faults, **counts, "erased": erased}, True)
    else:
        lines = [f"{each['file']} offset {each['offset']} height {each['height']}: {each['kind']}" for each in faults]
        if any(erased.values()):
            lines.append("erased or pruned: " + ", ".join(f"{count} {name}" for name, count in erased.items()))
        if found.pruned or found.blobs:
            lines.append(f"pruned versions: {found.pruned}; blobs beside the log: {found.blobs}")
        answer({}, False, [*lines, f"{'ok' if ok else 'NOT ok'}: {blocks} blocks, {transactions} transactions"])
    if not ok:
        failure = Failure(CORRUPTION, "fsck.faults", "stored bytes are not what was written", {"faults": len(faults)})
        raise typer.Exit(report(failure, as_json))


def _check(folder: Path) -> FsckReport:
    from ehrfast.node import Node

    with progress("checking blocks") as bar:
        return Node.fsck_folder(folder, bar)


def show_config(node: NodeFolder, as_json: Json = False) -> None:
    """Show the settings a node keeps in the clear; opens no key and reads no record.

    \b
    Example: ehrfast config show clinic.ehr
    """
    from ehrfast.access.write import MAX_RECORDS
    from ehrfast.node import FORMAT, Settings
    from ehrfast.node.folder import chain_names
    from ehrfast.records.placement import CLUSTER_INLINE_BYTES, MAX_BINARY_BYTES, MAX_RESOURCE_BYTES, Placement

    settings = Settings.load(node)
    placement = Placement.of(dict(settings.placement))
    value: dict[str, object] = {
        "format": FORMAT,
        "organisation_name": settings.organisation_name,
        "organisation": settings.organisation.hex(),
        "administrator": settings.administrator.hex(),
        "gateway": settings.gateway.hex(),
        "root_key": settings.root_key.kind,
        "root_key_path": settings.root_key.path if settings.root_key.kind == "file" else None,
        "witnesses": [asdict(each) for each in settings.witnesses],
        "chains": chain_names(node),
        "retention_days": settings.retention_days,
        "blobs": settings.blobs.as_dict(),
        "placement": {
            "off_chain_types": sorted(placement.off_chain),
            "off_chain_above_bytes": placement.item_bytes,
            "changed": dict(settings.placement),
        },
        "caps": {
            "records_of_a_transaction": MAX_RECORDS,
            "packs_inline_bytes": placement.inline_bytes,
            "packs_inline_in_a_cluster_bytes": CLUSTER_INLINE_BYTES,
            "resource_bytes": MAX_RESOURCE_BYTES,
            "binary_bytes": MAX_BINARY_BYTES,
        },
    }
    answer(value, as_json)


def set_config(
    node: NodeFolder,
    blobs: Annotated[
        str | None, typer.Option("--blobs", metavar="URL", help="local:, local:/folder or s3://bucket/prefix.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Of an S3 server that is not AWS.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="Of the bucket.")] = None,
    place: Annotated[
        list[str] | None,
        typer.Option("--place", metavar="TYPE=PLACE", help="chain, blob or default; may be repeated."),
    ] = None,
    retention_days: Annotated[
        int | None, typer.Option("--retention-days", help="How long the keys of later backups live: 1 to 30.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the settings of a node that is not running; what is stored already stays where it is.

    Blobs are looked for in the new store only: copy those that are there first. Credentials never stand in the
    settings: S3 takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of the machine.

    \b
    Example: ehrfast config set clinic.ehr --blobs s3://clinic-blobs --region eu-north-1 --place Coverage=chain
    """
    from ehrfast.node import Node
    from ehrfast.records.blobs import BlobSettings

    options = {"endpoint": endpoint, "region": region}
    given = tuple((name, text) for name, text in sorted(options.items()) if text is not None)
    if blobs is None and given:
        raise InvalidInputError("config.options_without_blobs")
    pairs = [text.partition("=") for text in place or ()]
    if any(not found for _, found, _ in pairs):
        raise InvalidInputError("config.malformed_place")
    Node.configure(
        node,
        blobs=None if blobs is None else BlobSettings(blobs, given),
        placement={name: where for name, _, where in pairs} or None,
        retention_days=retention_days,
    )
    show_config(node, as_json)


def collect_blobs(
    node: NodeFolder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: Json = False,
) -> None:
    """Remove blobs that no block names: what writes left that never became one.

    Only those older than two hours go, as a younger one may belong to a write under way.

    \b
    Example: ehrfast blobs gc clinic.ehr --dry-run
    """
    from ehrfast.node import Node

    with progress("reading blocks") as bar, Node.open(node, read_only=dry_run) as opened:
        found = opened.collect_blobs(remove=not dry_run, progress=bar)
    answer({**asdict(found), "removed": not dry_run}, as_json)


def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the Bundles go; made if absent.")],
    patients: Annotated[int, typer.Option("--patients", help="How many.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 1,
    years: Annotated[int, typer.Option("--years", help="Length of each history.")] = 10,
    as_json: Json = False,
) -> None:
    """Generate made-up FHIR R4 patients, one transaction Bundle each.

    \b
    Example: ehrfast synth patients --patients 100 --seed 7
    """
    with progress("generating patients") as bar:
        size = write_patients(folder, patients, seed=seed, years=years, bar=bar)
    answer({"folder": str(folder), "patients": patients, "seed": seed, "years": years, "bytes": size}, as_json)


def write_patients(folder: Path, patients: int, *, seed: int, years: int, bar: Progress | None = None) -> int:
    """Writes Bundles as ``patient-000000.json`` and so on; gives the bytes written."""
    from ehrfast.synthetic import generate_bundles

    try:
        bundles = generate_bundles(patients, seed=seed, years=years)
    except ValueError:
        raise InvalidInputError(
            "synthetic.out_of_range", {"patients": patients, "seed": seed, "years": years}
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for number, bundle in enumerate(bundles):
        size += (folder / f"patient-{number:06}.json").write_bytes(bundle)
        if bar is not None:
            bar(number + 1, patients)
    return size
