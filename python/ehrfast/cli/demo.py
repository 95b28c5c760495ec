"""The demo: a clinic in one folder, the way of one Observation told stage by stage, and what is refused on the way.

Owns its folder, and removes only what an earlier demo left there. Every number it prints comes from the real objects.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ehrfast.cli.operate import write_patients
from ehrfast.cli.output import Json, answer, progress
from ehrfast.errors import ConflictError, CorruptionError, DeniedError, EhrfastError, VerificationError
from ehrfast.model.proof import Checked, Evidence, verify

if TYPE_CHECKING:
    from ehrfast.access.session import Record
    from ehrfast.model.identity import Identity
    from ehrfast.node import Node

_MARK: Final = ".ehrfast-demo"
_SEED: Final = 1
_LANES: Final = ("emergency", "urgent", "routine")
_ROWS: Final = 1
"""Argument of ``records.put`` that holds the rows."""


def demo(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the demo lives.")],
    patients: Annotated[int, typer.Option("--patients", min=1, help="How many patients are made up.")] = 20,
    as_json: Json = False,
) -> None:
    """Follow made-up patients from FHIR files to a proof that is checked offline.

    \b
    Example: ehrfast demo --dir demo
    """
    from ehrfast.node import Node

    story = _Story(as_json)
    clinic, source = _fresh(folder)
    with progress("generating patients") as bar:
        size = write_patients(source, patients, seed=_SEED, years=10, bar=bar)
    story.part("patients", f"{patients} made-up patients in {source}", bytes=size, seed=_SEED)
    with Node.create(clinic, organisation="Clinic North") as node:
        story.part("node", f"a node of its own in {clinic}", chain=node.chain.chain_id, verifier_key=node.verifier_key)
        _import(node, source, story)
        doctor = node.identities.enrol("physician-1", role="physician")
        researcher = node.identities.enrol("researcher-1", role="researcher")
        story.part("people", "two people enrolled", physician=str(doctor), researcher=str(researcher))
        way = _read_and_prove(node, doctor)
        _tell_stages(node, way, story)
        _tell_reading(way, source, story)
        strangers = {"gateway": node.identities.gateway, "researcher": researcher}
        _tell_denied(node, way.record.reference, strangers, story)
        key = node.verifier_key
    _tell_checking(folder, way, key, story)
    story.end(_next_commands(clinic, folder, way.record.reference, doctor, key))


@dataclass(frozen=True, slots=True)
class _Way:
    """One Observation, read and proven."""

    record: Record
    evidence: Evidence
    checked: Checked


class _Story:
    """Tells people part by part; with ``--json`` keeps everything for one object at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._parts: dict[str, object] = {}

    def part(self, name: str, sentence: str, **facts: object) -> None:
        self._parts[name] = {"what": sentence, **facts}
        if not self._as_json:
            width = max((len(fact) for fact in facts), default=0)
            lines = [f"    {fact.replace('_', ' '):<{width}}  {value}" for fact, value in facts.items()]
            answer({}, False, [f"{name}: {sentence}", *lines])

    def end(self, commands: list[str]) -> None:
        if self._as_json:
            answer({**self._parts, "next": commands}, True)
            return
        answer({}, False, ["", "Try next:", *(f"    {command}" for command in commands)])


def _fresh(folder: Path) -> tuple[Path, Path]:
    clinic, source, mark = folder / "clinic.ehr", folder / "patients", folder / _MARK
    if not mark.exists() and folder.exists() and any(folder.iterdir()):
        raise ConflictError("demo.not_a_demo", {"folder": str(folder)})
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for earlier in (clinic, source):
        if earlier.exists():
            shutil.rmtree(earlier)
    return clinic, source


def _import(node: Node, source: Path, story: _Story) -> None:
    with progress("importing files") as bar:
        report = node.import_fhir(source, progress=bar)
    story.part(
        "import",
        "every Bundle sealed, signed, ordered, executed, committed and published",
        resources=report.resources,
        transactions=report.transactions,
        rejected=len(report.rejected),
        seconds=round(report.seconds, 3),
        resources_per_second=round(report.resources_per_second),
    )


def _read_and_prove(node: Node, doctor: Identity) -> _Way:
    with node.session(doctor, purpose="TREAT") as session:
        reference = session.list("Observation")[0].reference
        record = session.read(reference)
        evidence = session.prove(reference, record.version, disclose=True)
    return _Way(record, evidence, verify(evidence, key=node.verifier_key, content=record.content))


def _tell_stages(node: Node, way: _Way, story: _Story) -> None:
    """The hand-overs of the block that holds the Observation, read back from the chain."""
    from ehrfast.chain.recover import head_of
    from ehrfast.model.checkpoint import Checkpoint, Note
    from ehrfast.model.tlog_proof import TlogProof

    chain, checked, record = node.chain, way.checked, way.record
    block = chain.read_block(checked.height)
    transaction, receipt = next(call for call in block.calls if call[1].index == checked.index)
    if transaction is None:
        raise CorruptionError("demo.not_a_transaction", {"index": checked.index})
    row = _row_of(transaction.args[_ROWS], checked)
    pack_root, wraps_root = transaction.attachments[row[6]]
    pack = block.pack(pack_root)
    frame = chain.segments.read(checked.height)
    leaves = frame.leaves
    file, offset = chain.segments.locate(checked.height)
    proof = TlogProof.parse(way.evidence.text)
    checkpoint = Checkpoint.parse(Note.parse(proof.checkpoint).text)
    story.part(
        "seal",
        f"{record.reference} becomes a ciphertext, its content key wrapped for the patient's class key",
        content_bytes=len(record.content),
        sealed_bytes=len(pack.item(row[7]) or b""),
        wraps_bytes=len(pack.wraps(row[7]) or b""),
        record_id=checked.record_id.hex(),
        version=checked.version,
        record_class=checked.record_class,
        commitment=row[5].hex(),
        pack_root=pack_root.hex(),
    )
    story.part(
        "admit",
        "the signed transaction that carries the pack; its form, chain, time and signature are checked",
        transaction_id=transaction.id.hex(),
        signed_by=transaction.sender.hex(),
        calls=f"{transaction.contract}.{transaction.method}",
        bytes=len(transaction),
        wraps_root=wraps_root.hex(),
    )
    story.part(
        "order",
        "its place among the others",
        lane=_LANES[transaction.lane],
        block_height=checked.height,
        calls_in_block=len(block.calls),
        engine_height=head_of(frame).engine_height,
    )
    story.part(
        "execute",
        "the contract says yes, and what it changed",
        code=receipt.code,
        counted_work=receipt.work,
        keys_written=receipt.write_count,
        events=", ".join(f"{contract}.{name}" for contract, name, _ in receipt.events) or "none",
    )
    story.part(
        "assemble",
        "leaves for the log, and the state's new root",
        leaf_index=receipt.index,
        leaves_in_block=len(leaves),
        state_root=head_of(frame).state_root.hex(),
    )
    story.part("commit", "one frame, appended and synced before anybody is told", file=Path(file).name, offset=offset)
    story.part(
        "publish",
        "the checkpoint, signed after the sync (the newest one: reading is recorded as well)",
        tree_size=checkpoint.tree_size,
        log_root=checkpoint.root.hex(),
        checkpoint="".join(f"\n        {line}" for line in proof.checkpoint.decode().splitlines()),
    )
    story.part(
        "prove",
        "evidence under that checkpoint",
        evidence_bytes=len(way.evidence.text),
        audit_path_hashes=len(proof.hashes),
        discloses=way.evidence.disclosed,
    )


def _row_of(rows: object, checked: Checked) -> tuple[Any, ...]:
    if isinstance(rows, tuple):
        for row in rows:
            if row[0] == checked.record_id and row[1] == checked.version:
                return tuple(row)
    raise CorruptionError("demo.no_row", {"index": checked.index})


def _tell_reading(way: _Way, source: Path, story: _Story) -> None:
    equal = any(way.record.content in file.read_bytes() for file in sorted(source.iterdir()))
    if not equal:
        raise VerificationError("demo.bytes_differ")
    story.part(
        "read",
        "the physician, for TREAT, gets the bytes that were imported; the read is in the audit before the answer",
        reference=way.record.reference,
        version=way.record.version,
        bytes=len(way.record.content),
        bytes_equal=equal,
    )


def _tell_denied(node: Node, reference: str, askers: dict[str, Identity], story: _Story) -> None:
    for name, identity in askers.items():
        with node.session(identity, purpose="TREAT") as session:
            error = _refusal(partial(session.read, reference), DeniedError)
        story.part(f"denied to the {name}", "may not read; the attempt is in the audit", code=error.code)


def _tell_checking(folder: Path, way: _Way, key: str, story: _Story) -> None:
    saved = folder / "observation.proof"
    way.evidence.save(saved)
    content = folder / "observation.json"
    content.write_bytes(way.record.content)
    checked = verify(saved, key=key, content=content.read_bytes())
    story.part(
        "verify",
        "from the file alone, the node closed",
        file=str(saved),
        recorded_at=checked.time.isoformat(),
        chain_id=checked.chain_id,
        tree_size=checked.tree_size,
        content_matches=checked.content_matches,
    )
    altered = bytearray(way.record.content)
    altered[len(altered) // 2] ^= 1
    error = _refusal(lambda: verify(saved, key=key, content=bytes(altered)), VerificationError)
    story.part("altered", "one bit of the resource turned: refused", code=error.code)


def _refusal(attempt: Callable[[], object], kind: type[EhrfastError]) -> EhrfastError:
    """The error an attempt must end with."""
    try:
        attempt()
    except kind as error:
        return error
    raise VerificationError("demo.not_refused", {"expected": kind.__name__})


def _program() -> str:
    """How a reader in this folder calls the program that is running: it need not be on their PATH."""
    script = Path(sys.executable).with_name("ehrfast")
    if shutil.which("ehrfast") is not None or not script.exists():
        return "ehrfast"
    return os.path.relpath(script)


def _next_commands(clinic: Path, folder: Path, reference: str, doctor: Identity, key: str) -> list[str]:
    asking = ["--as", str(doctor), "--purpose", "TREAT"]
    checking = ["--key", key, "--resource", str(folder / "observation.json")]
    program = _program()
    return [
        shlex.join([program, "list", str(clinic), "Condition", *asking]),
        shlex.join([program, "get", str(clinic), reference, *asking]),
        shlex.join([program, "verify", str(folder / "observation.proof"), *checking]),
    ]
