"""A node with witnesses: cosignatures in status and evidence; a history taken back or forked is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from ehrfast import Node, verify
from ehrfast._core import SigningKey
from ehrfast.chain import cosign
from ehrfast.chain.cosign import FILE
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.ask_witness import Answer, WitnessAddress
from ehrfast.model.checkpoint import Note, VerifierKey, open_checkpoint, verifier_key, witness_key
from ehrfast.model.proof import Evidence
from ehrfast.model.tlog_proof import TlogProof
from ehrfast.witness import Witness, WitnessServer

RUN = """
import sys
from ehrfast.witness import run_witness
run_witness(sys.argv[1], port=int(sys.argv[2]), ready=lambda url, vkey: print(url, vkey, flush=True))
"""
NOBODY = "http://127.0.0.1:1"


class Running:
    """A witness in a process of its own, which can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", RUN, str(self.folder), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url, self.vkey = self._process.stdout.readline().split()
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def watch(self, node: Node) -> None:
        (self.folder / "logs" / "clinic.vkey").write_text(node.verifier_key)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "witness")
    yield running
    running.stop()


@pytest.fixture
def node(tmp_path: Path, patients: Path, witness: Running) -> Iterator[Node]:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as made:
        made.import_fhir(patients)
        witness.watch(made)
        state = made.add_witness(witness.url, witness.vkey)
        assert (state.failure, state.tree_size) == (None, made.chain.published.tree_size)
        yield made


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 30
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


def grow(node: Node, name: str = "physician") -> int:
    node.identities.enrol(name, role="physician")
    return node.chain.published.tree_size


def evidence_of(node: Node, quorum: int | None = None) -> tuple[Evidence, bytes]:
    doctor = node.identities.enrol("reader", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        reference = session.list("Observation")[0].reference
        content = session.read(reference).content
        return session.prove(reference, disclose=True, quorum=quorum), content


def without_cosignature(evidence: Evidence) -> bytes:
    lines = evidence.text.splitlines(keepends=True)
    assert lines[-1].startswith("— witness".encode())
    return b"".join(lines[:-1])


def test_a_cosignature_stands_in_status_and_on_disk(node: Node, witness: Running) -> None:
    size = grow(node)
    until(lambda: node.status().cosignatures[0].tree_size == size)
    (cosignature,) = node.status().cosignatures
    assert cosignature.witness == VerifierKey.decode(witness.vkey).name
    until(lambda: len(Note.parse(node.chain.checkpoint).signatures) == 2)
    with Node.open(node.folder, read_only=True) as beside:
        assert beside.status().cosignatures == (cosignature,)
        assert beside.chain.checkpoint == node.chain.checkpoint
        with pytest.raises(UnavailableError, match=r"chain\.read_only"):
            beside.add_witness(witness.url, witness.vkey)


def test_the_last_checkpoint_is_cosigned_when_the_node_closes(node: Node) -> None:
    size = [grow(node, f"physician-{number}") for number in range(3)][-1]
    node.close()
    with Node.open(node.folder, read_only=True) as opened:
        assert [each.tree_size for each in opened.status().cosignatures] == [size]


@pytest.mark.parametrize("quorum", [None, 1])
def test_evidence_carries_the_cosignature(node: Node, witness: Running, quorum: int | None) -> None:
    evidence, content = evidence_of(node, quorum)
    key = node.verifier_key

    def check(text: bytes, *, quorum: int | None = 1, witnesses: tuple[str, ...] = (witness.vkey,)) -> None:
        verify(text, key=key, content=content, witnesses=witnesses, quorum=quorum)

    check(evidence.text)
    check(evidence.text, quorum=None)
    bare = without_cosignature(evidence)
    check(bare, witnesses=(), quorum=None)
    line = evidence.text[len(bare) :]
    other = witness_key("witness-other", SigningKey.generate().public_key)
    refused = [
        (bare, (witness.vkey,), None, "checkpoint.quorum_missed"),
        (bare, (witness.vkey,), 1, "checkpoint.quorum_missed"),
        (evidence.text, (), 1, "checkpoint.quorum_missed"),
        (evidence.text, (other,), 1, "checkpoint.quorum_missed"),
        (evidence.text, (witness.vkey, other), None, "checkpoint.quorum_missed"),
        (evidence.text, (witness.vkey, witness.vkey), 2, "checkpoint.quorum_missed"),
        (bare + line.replace(b"witness-", b"Witness-"), (witness.vkey,), 1, "checkpoint.quorum_missed"),
    ]
    for text, witnesses, wanted, code in refused:
        with pytest.raises(VerificationError) as missed:
            check(text, quorum=wanted, witnesses=witnesses)
        assert missed.value.code == code
    altered = bytearray(evidence.text)
    altered[-20] = ord("A") if altered[-20] != ord("A") else ord("B")
    with pytest.raises(VerificationError, match=r"cosignature\.invalid"):
        check(bytes(altered))


def test_evidence_is_cosigned_while_others_write(node: Node, witness: Running) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            grow(node, f"physician-{number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            evidence, content = evidence_of(node, quorum=1)
            verify(evidence, key=node.verifier_key, content=content, witnesses=[witness.vkey], quorum=1)
    finally:
        stop.set()
        writer.join()


def test_a_witness_that_is_down_stops_nothing_and_is_asked_again(node: Node, witness: Running) -> None:
    witness.stop()
    size = grow(node)
    until(lambda: node.witnesses()[0].failure == "witness.unreachable")
    evidence, content = evidence_of(node)
    verify(evidence, key=node.verifier_key, content=content)
    with pytest.raises(UnavailableError) as missed:
        evidence_of(node, quorum=1)
    assert (missed.value.code, dict(missed.value.details)) == (
        "checkpoint.quorum_missed",
        {"cosignatures": 0, "quorum": 1},
    )
    node.close()
    with Node.open(node.folder) as again:
        assert again.chain.published.tree_size > size
        assert again.witnesses()[0].failure == "witness.unreachable"
        witness.start()
        until(lambda: again.status().cosignatures[0].tree_size == again.chain.published.tree_size)
        assert again.witnesses()[0].failure is None


def test_a_witness_that_does_not_know_the_log_is_named(tmp_path: Path, witness: Running) -> None:
    with Node.create(tmp_path / "n", organisation="Clinic North") as node:
        assert node.add_witness(witness.url, witness.vkey).failure == "witness.unknown_log"
        assert node.status().cosignatures == ()
        witness.watch(node)
        until(lambda: node.witnesses()[0].failure is None)


def test_what_is_no_witness_is_refused(node: Node, witness: Running) -> None:
    log_key = verifier_key("log", SigningKey.generate().public_key)
    for url, vkey, code in [
        ("ftp://127.0.0.1", witness.vkey, "witness.bad_url"),
        ("http://[", witness.vkey, "witness.bad_url"),
        (witness.url, "nobody", "verifier_key.malformed"),
        (witness.url, log_key, "verifier_key.wrong_algorithm"),
    ]:
        with pytest.raises(InvalidInputError) as refused:
            node.add_witness(url, vkey)
        assert refused.value.code == code
    assert [each.url for each in node.witnesses()] == [witness.url]
    assert node.add_witness(NOBODY, witness.vkey).failure == "witness.unreachable"
    assert [each.url for each in node.witnesses()] == [NOBODY]
    node.close()
    with Node.open(node.folder) as again:
        assert [each.url for each in again.witnesses()] == [NOBODY]


class Slow:
    """A witness in this process that answers when it is let, and remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.let = threading.Event()
        self.sizes: list[int] = []
        self.under_way = 0
        self.most_under_way = 0
        self.witness = Witness.create(folder)
        judge = self.witness.add_checkpoint
        counting = threading.Lock()

        def wait_and_judge(request: bytes) -> Answer:
            size = int(request.partition(b"\n\n")[2].split(b"\n")[1])
            with counting:
                self.sizes.append(size)
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                assert self.let.wait(30)
                return judge(request)
            finally:
                with counting:
                    self.under_way -= 1

        self.witness.add_checkpoint = wait_and_judge  # type: ignore[method-assign]
        self.server = WitnessServer(self.witness)


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    monkeypatch.setattr(cosign, "OPENING_S", 0.0)
    monkeypatch.setattr(cosign, "REQUEST_S", 60.0)
    made = Slow(tmp_path / "slow")
    yield made
    made.let.set()
    made.server.close()
    made.witness.close()


def test_a_witness_is_asked_once_at_a_time_for_the_newest_and_writers_never_wait_for_it(
    tmp_path: Path, slow: Slow
) -> None:
    with Node.create(tmp_path / "n", organisation="Clinic North") as node:
        slow.witness.add_log(node.verifier_key)
        first = node.chain.published.tree_size
        node.chain.cosigner.add(WitnessAddress(slow.server.url, slow.witness.vkey))
        until(lambda: slow.under_way == 1)
        sizes = [grow(node, f"physician-{number}") for number in range(20)]
        assert slow.under_way == 1
        slow.let.set()
        until(lambda: bool(node.status().cosignatures) and node.status().cosignatures[0].tree_size == sizes[-1])
        asked = sorted(set(slow.sizes))
        assert asked == [first, sizes[-1]]
        assert slow.sizes == sorted(slow.sizes)
        assert slow.most_under_way == 1


def test_evidence_waits_for_its_own_checkpoint_when_newer_ones_follow(tmp_path: Path, slow: Slow) -> None:
    slow.let.set()
    with Node.create(tmp_path / "n", organisation="Clinic North") as node:
        slow.witness.add_log(node.verifier_key)
        node.add_witness(slow.server.url, slow.witness.vkey)
        until(lambda: bool(node.status().cosignatures))
        slow.let.clear()
        grow(node, "first")
        proven: list[Evidence] = []
        prover = threading.Thread(target=lambda: proven.append(node.chain.prove((), quorum=1)))
        prover.start()
        until(lambda: slow.under_way == 1)
        wanted = slow.sizes[-1]
        assert grow(node, "second") > wanted
        slow.let.set()
        prover.join(30)
        note = TlogProof.parse(proven[0].text).checkpoint
        opened = open_checkpoint(note, node.verifier_key, witnesses=[slow.witness.vkey], quorum=1)
        assert opened.tree_size == wanted


def test_a_cosignature_that_cannot_be_kept_is_told_to_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = node.status().cosignatures

    def full(path: Path, data: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(cosign, "write_synced", full)
        size = grow(node)
        until(lambda: node.witnesses()[0].failure == "cosignatures.not_written")
        assert node.status().cosignatures == before
        with pytest.raises(UnavailableError, match=r"checkpoint\.quorum_missed"):
            node.chain.prove((), quorum=1)
        assert len(Note.parse(node.chain.checkpoint).signatures) == 1
    until(lambda: node.status().cosignatures[0].tree_size == size)


def test_a_witness_is_dropped_by_its_key_even_when_it_keeps_a_node_from_opening(
    node: Node, witness: Running, tmp_path: Path
) -> None:
    copy = copied(node, tmp_path / "copy")
    with Node.open(node.folder) as later:
        with pytest.raises(ConflictError, match=r"node\.locked"):
            Node.drop_witness(node.folder, witness.vkey)
        grow(later)
    put_back(copy, node.folder)
    with pytest.raises(CorruptionError, match=r"log\.shorter_than_witnessed"):
        Node.open(node.folder)
    Node.drop_witness(node.folder, witness.vkey)
    with pytest.raises(NotFoundError, match=r"witness\.unknown"):
        Node.drop_witness(node.folder, witness.vkey)
    with Node.open(node.folder) as opened:
        assert opened.witnesses() == []


# ── a history taken back ──


def copied(node: Node, folder: Path) -> Path:
    node.close()
    return Path(shutil.copytree(node.folder, folder))


def put_back(copy: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    copy.rename(folder)


def test_a_folder_put_back_is_refused_at_open(node: Node, tmp_path: Path) -> None:
    copy = copied(node, tmp_path / "copy")
    with Node.open(node.folder) as later:
        known = grow(later)
    put_back(copy, node.folder)
    for _ in range(2):
        with pytest.raises(CorruptionError) as refused:
            Node.open(node.folder)
        assert refused.value.code == "log.shorter_than_witnessed"
        assert refused.value.details["known"] == known


def test_a_log_shorter_than_a_kept_cosignature_is_refused_without_any_witness(
    node: Node, witness: Running, tmp_path: Path
) -> None:
    copy = copied(node, tmp_path / "copy")
    with Node.open(node.folder) as later:
        grow(later)
    shutil.copy(node.folder / "chains" / "main" / FILE, copy / "chains" / "main" / FILE)
    put_back(copy, node.folder)
    witness.stop()
    for read_only in (False, True):
        with pytest.raises(CorruptionError) as refused:
            Node.open(node.folder, read_only=read_only)
        assert refused.value.code == "log.shorter_than_checkpoint"
    assert [fault.kind for fault in Node.fsck_folder(node.folder).faults] == ["log.shorter_than_checkpoint"]


def test_another_history_of_the_same_log_is_refused(node: Node, witness: Running, tmp_path: Path) -> None:
    """The witness is kept away while the copy grows past what it has seen, and is then shown the copy."""
    copy = copied(node, tmp_path / "copy")
    with Node.open(node.folder) as later:
        grow(later)
    kept = node.folder / "chains" / "main" / FILE
    cosigned = kept.read_bytes()
    put_back(copy, node.folder)
    witness.stop()
    with Node.open(node.folder) as fork:
        for number in range(4):
            grow(fork, f"another-{number}")
    witness.start()
    with pytest.raises(CorruptionError) as refused:
        Node.open(node.folder)
    assert refused.value.code == "log.not_the_witnessed"
    witness.stop()
    kept.write_bytes(cosigned)
    with pytest.raises(CorruptionError) as named:
        Node.open(node.folder)
    assert named.value.code == "log.not_the_checkpoint"


def test_a_running_twin_stops_writing_once_the_witness_has_seen_the_other(
    node: Node, witness: Running, tmp_path: Path
) -> None:
    copy = copied(node, tmp_path / "copy")
    with Node.open(node.folder) as first, Node.open(copy) as twin:
        grow(first)
        until(lambda: first.status().cosignatures[0].tree_size == first.chain.published.tree_size)
        grow(twin)
        until(lambda: twin.chain.failure is not None)
        assert twin.chain.failure is not None
        assert twin.chain.failure.code == "log.not_the_witnessed"
        with pytest.raises(UnavailableError, match=r"chain\.stopped"):
            grow(twin)
        grow(first)
        assert first.chain.failure is None


@pytest.mark.parametrize("damage", ["cut", "size", "format", "key"])
def test_damaged_cosignatures_never_count_as_none(node: Node, witness: Running, damage: str) -> None:
    node.close()
    kept = node.folder / "chains" / "main" / FILE
    value = json.loads(kept.read_bytes())
    (note,) = value["notes"].values()
    size = note.split("\n")[1]
    other = witness_key("w", SigningKey.generate().public_key)
    kept.write_bytes(
        {
            "cut": kept.read_bytes()[:-20],
            "size": json.dumps({**value, "notes": {witness.vkey: note.replace(f"\n{size}\n", "\n2\n", 1)}}).encode(),
            "format": json.dumps({**value, "format": 2}).encode(),
            "key": json.dumps({**value, "notes": {other: note}}).encode(),
        }[damage]
    )
    with pytest.raises(CorruptionError, match=r"cosignatures\.damaged"):
        Node.open(node.folder)
