"""The walk: one Observation from JSON to a witnessed checkpoint, each hand-over as the stage itself gave it.

Owns docs/walk.md, which is this text and nothing else. Every value is taken from the call of the stage's own function
while a node runs; random values are shown by name, so a name seen twice is the same bytes seen twice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any, Final
from unittest.mock import patch

import ehrfast.access.import_fhir as importing
import ehrfast.access.write as writing
import ehrfast.chain.chain as chain_stages
from ehrfast import Node, verify
from ehrfast._core import decode_block_leaf
from ehrfast.errors import NotFoundError
from ehrfast.model.checkpoint import Checkpoint, Note, VerifierKey
from ehrfast.model.tlog_proof import TlogProof
from ehrfast.witness import Witness, WitnessServer

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "walk.md"
LANES: Final = ("emergency", "urgent", "routine")
_ROWS: Final = 1
"""Argument of ``records.put`` that holds the rows."""

PATIENT: Final = {"resourceType": "Patient", "id": "p1", "birthDate": "1961-03-09"}
OBSERVATION: Final = {
    "resourceType": "Observation",
    "id": "bp1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
    "subject": {"reference": "Patient/p1"},
    "valueQuantity": {"value": 128, "unit": "mm[Hg]"},
}
BUNDLE: Final = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [{"resource": PATIENT}, {"resource": OBSERVATION}],
}


@dataclass(slots=True)
class Call:
    """One call of a stage's public function."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    result: Any


@dataclass(slots=True)
class Stages:
    """What the stages were given and what they gave, in the order they were called."""

    calls: dict[str, list[Call]] = field(default_factory=dict)

    def last(self, stage: str) -> Call:
        """The newest call of a stage."""
        return self.calls[stage][-1]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Looks over the shoulder of every stage; changes nothing on its way."""
        places = {
            "split": (importing, "split_resources"),
            "seal": (writing, "seal"),
            "sign": (writing, "sign_call"),
            **{name: (chain_stages, name) for name in ("admit", "order", "execute", "assemble", "commit", "publish")},
        }
        with ExitStack() as stack:
            for stage, (module, name) in places.items():
                stack.enter_context(patch.object(module, name, self._watch(stage, getattr(module, name))))
            yield

    def _watch(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            self.calls.setdefault(stage, []).append(Call(arguments, named, result))
            return result

        return watched


class Names:
    """Random values by name; the same bytes always have the same name."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._names: dict[bytes, str] = {}

    def __call__(self, value: bytes, name: str) -> str:
        """The name of a value, the given one when it has none yet."""
        known = self._names.setdefault(value, name)
        return f"{value.hex()[:12]}… ({known})" if self._shown else f"‹{known}›"


class Story:
    """The page while it is written."""

    def __init__(self) -> None:
        self._lines = [
            "# The walk of one Observation",
            "",
            "Written by `make walk`, which follows one resource through a running node. A value in ‹angle quotes› is",
            "random; the same name stands for the same bytes. Words are those of the [glossary](glossary.md), bytes",
            "are drawn in [formats](formats.md).",
        ]

    def stage(self, name: str, sentence: str, **facts: object) -> None:
        """One hand-over."""
        width = max(len(fact) for fact in facts)
        self._lines += ["", f"## {name}", "", fill(sentence, 120), "", "```text"]
        self._lines += [f"{fact.replace('_', ' '):<{width}}  {value}" for fact, value in facts.items()]
        self._lines += ["```"]

    def text(self) -> str:
        """The whole page."""
        return "\n".join(self._lines) + "\n"


def follow(folder: Path, *, shown: bool = False) -> str:
    """Runs a node in an empty folder and tells the way of one Observation.

    Args:
        shown: random values are printed beside their names.
    """
    story, names, stages = Story(), Names(shown=shown), Stages()
    source = folder / "bundle.json"
    source.write_text(json.dumps(BUNDLE))
    with Node.create(folder / "clinic.ehr", organisation="Clinic North") as node:
        names(node.settings.gateway, "gateway")
        with stages.watched():
            report = node.import_fhir(source)
        assert (report.resources, report.transactions, report.rejected) == (2, 1, ())
        _tell_sealing(node, stages, story, names)
        _tell_ordering(stages, story, names)
        _tell_durable(node, stages, story, names)
        _tell_reading(node, story, names)
        _tell_proof(node, folder, story, names)
    return story.text()


def _tell_sealing(node: Node, stages: Stages, story: Story, names: Names) -> None:
    resources = stages.last("split").result
    position = [row[1] for row in resources.rows()].index("bp1")
    _, resource_id, _, patient, _ = resources.rows()[position]
    content = resources.content(position)
    story.stage(
        "split",
        "A file comes in. Each resource keeps the very bytes it was received in; nothing is written anew.",
        takes=f"{len(resources.data)} bytes of JSON, a {resources.kind}",
        gives=f"{len(resources)} resources",
        ours=f"Observation/{resource_id} of {patient}, {len(content)} bytes",
        begins=content[:58].decode(),
    )
    sealed = stages.last("seal").result
    draft = stages.last("seal").arguments[2][position]
    row = sealed.rows[position]
    story.stage(
        "seal",
        "The bytes are encrypted under a key of their own, which is wrapped for the class key of this patient. "
        "A manifest per patient, sealed likewise, says which position holds which resource.",
        takes=f"{draft.end - draft.start} bytes, subject {names(draft.subject.id, 'subject')}",
        record_id=names(row[0], "record id"),
        version=row[1],
        class_=row[3],
        epoch=names(row[4], "epoch"),
        commitment=names(row[5], "commitment"),
        item=f"{len(sealed.pack.item(position))} bytes, wraps {len(sealed.pack.wraps(position))} bytes",
        gives=f"a pack of {len(sealed.pack)} items, root {names(sealed.pack.root, 'pack root')}",
        wraps_root=names(sealed.pack.wraps_root, "wraps root"),
    )
    transaction = stages.last("sign").result
    story.stage(
        "sign",
        "One transaction says what the pack holds, and is signed by the gateway's key. Its id is the digest of what "
        "was signed.",
        takes=f"pack {names(transaction.attachments[0][0], '?')}, wraps {names(transaction.attachments[0][1], '?')}",
        calls=f"{transaction.contract}.{transaction.method} with {len(transaction.args[_ROWS])} rows",
        our_row=", ".join(names(each, "?") if isinstance(each, bytes) else str(each) for each in row),
        chain=_chain_name(node, names),
        signed_by=names(transaction.sender, "gateway key"),
        gives=f"{len(transaction)} bytes, id {names(transaction.id, 'transaction id')}",
    )


def _tell_ordering(stages: Stages, story: Story, names: Names) -> None:
    admitted = stages.last("admit").result[0]
    story.stage(
        "admit",
        "Checks that need no state: form, chain, signature, pack roots, size. Who may do what is not asked here.",
        takes=f"transaction {names(stages.last('admit').arguments[0][0].transaction.id, '?')}",
        gives=f"admitted, {admitted.size} bytes with its pack, lane {LANES[admitted.lane]}",
    )
    batch = next(call.result for call in reversed(stages.calls["order"]) if call.result.items)
    story.stage(
        "order",
        "The engine takes what waits in the lanes. A lone writer does not wait for company.",
        gives=f"a batch of {len(batch.items)}: {names(batch.items[0].transaction.id, '?')}",
        engine_height=batch.engine_height,
    )
    execution = stages.last("execute").result
    receipt = execution.receipts[0]
    story.stage(
        "execute",
        "The contract runs over an overlay of the state: may this key write for this custodian, is it the next "
        "version, is the epoch the one in force. Nothing is durable yet.",
        takes=f"the batch, first leaf index {stages.last('execute').named['first_index']}",
        gives=f"receipt of {names(receipt.id, '?')}, code {receipt.code} (applied)",
        write_set=f"{receipt.write_count} keys",
        events=", ".join(f"{contract}.{event}" for contract, event, _ in receipt.events),
    )


def _tell_durable(node: Node, stages: Stages, story: Story, names: Names) -> None:
    block, _ = stages.last("assemble").result
    head = decode_block_leaf(block.leaf)
    story.stage(
        "assemble",
        "Leaves for the log; the last one is the block's own and carries the state root and the log root before it.",
        takes="receipts and write set",
        gives=f"block {block.height}, leaves {head.first_index} to {block.tree_size - 1}",
        previous_root=names(head.previous_root, "log root before"),
        state_root=names(block.state_root, "state root"),
        log_root=names(block.log_root, "log root"),
    )
    segments = stages.last("commit").arguments[0]
    file, offset = segments.locate(block.height)
    story.stage(
        "commit",
        "One frame, one append, one sync. A crash at any byte leaves the block before or this one.",
        takes=f"block {block.height} and {len(stages.last('commit').arguments[2])} pack",
        gives=f"a frame in {Path(file).name}",
        behind=f"{block.height} earlier frames" if offset else "nothing",
    )
    published = stages.last("publish").result
    checkpoint = Checkpoint.parse(Note.parse(published.note).text)
    story.stage(
        "publish",
        "Only now is the checkpoint signed, the state readable and the sender told.",
        takes=f"block {published.height}, state root {names(published.state_root, '?')}",
        checkpoint=f"{_chain_name(node, names)} / {checkpoint.tree_size} / {names(checkpoint.root, '?')}",
        signatures=f"{len(Note.parse(published.note).signatures)}, the node's",
    )


def _tell_reading(node: Node, story: Story, names: Names) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    researcher = node.identities.enrol("researcher-1", role="researcher")
    with node.session(doctor, purpose="TREAT") as session:
        before = node.chain.published.tree_size
        record = session.read("Observation/bp1")
        after = node.chain.published.tree_size
    block = node.chain.read_block(node.chain.published.height)
    transaction, receipt = block.calls[0]
    assert transaction is not None
    story.stage(
        "read",
        "A session has a person and a purpose. The AuditEvent is a sealed record of the patient's own log, durable "
        "before the answer leaves.",
        asked="Observation/bp1 by a physician for TREAT",
        audit=f"{transaction.contract}.{transaction.method}, leaf {receipt.index}, code {receipt.code}",
        tree_size=f"{before} before the answer was there, {after} when it was",
        answer=f"{len(record.content)} bytes, equal to those received: {record.content == _received()}",
    )
    refused = _code(lambda: node.session(researcher, purpose="HRESCH").read("Observation/bp1"))
    absent = _code(lambda: node.session(doctor, purpose="TREAT").read("Observation/never-there"))
    story.stage(
        "refuse",
        "Who may read nothing at all is told so; for everybody else a hidden record answers like an absent one. Both "
        "attempts are audited.",
        a_researcher=refused,
        an_absent_one=absent,
    )


def _tell_proof(node: Node, folder: Path, story: Story, names: Names) -> None:
    doctor = next(held for held in node.identities.all() if held.role == "physician")
    with (
        Witness.create(folder / "witness") as witness,
        WitnessServer(witness) as server,
        node.session(node.identities.get(doctor.id.hex()), purpose="TREAT") as session,
    ):
        witness.add_log(node.verifier_key)
        state = node.add_witness(server.url, witness.vkey)
        story.stage(
            "witness",
            "Somebody else remembers the newest checkpoint, signs it too, and will refuse any that does not extend it.",
            takes=f"checkpoint of {node.chain.published.tree_size} leaves",
            gives=f"a cosignature for {state.tree_size} leaves",
        )
        evidence = session.prove("Observation/bp1", disclose=True, quorum=1)
    proof = TlogProof.parse(evidence.text)
    checked = verify(evidence, key=node.verifier_key, content=_received(), witnesses=[witness.vkey])
    signers = [each.name for each in Note.parse(proof.checkpoint).signatures]
    assert signers == [node.chain.chain_id, VerifierKey.decode(witness.vkey).name]
    story.stage(
        "prove",
        "Evidence is one text: the last block leaf, its place under the checkpoint, and the record's row under its "
        "state root. It is checked without a node, with the verifier keys alone.",
        gives=f"a C2SP tlog-proof, leaf {proof.index} of {checked.tree_size}, {len(proof.hashes)} hashes",
        signatures=f"{len(signers)}, the node's and the witness's",
        shows=f"record {names(checked.record_id, '?')} version {checked.version}, written at leaf {checked.index}",
        by=f"{names(checked.author, '?')}, key in {checked.custody} custody",
        content_matches=checked.content_matches,
    )


def _received() -> bytes:
    """The Observation as it stands in the file."""
    return json.dumps(OBSERVATION).encode()


def _chain_name(node: Node, names: Names) -> str:
    return names(node.chain.chain_id.encode(), "chain id")


def _code(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (PermissionError, NotFoundError) as error:
        return str(getattr(error, "code", error))
    raise AssertionError("not refused")


def main() -> None:
    """Prints the walk with its values and writes the page."""
    with TemporaryDirectory() as folder:
        sys.stdout.write(follow(Path(folder), shown=True))
    with TemporaryDirectory() as folder:
        PAGE.write_text(follow(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
