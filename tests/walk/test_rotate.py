"""Changing keys of a running node: what is there stays readable, and the old keys open nothing that comes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ehrfast import Node, verify
from ehrfast._core import KeyStore, SigningKey
from ehrfast.chain.key_history import FILE
from ehrfast.errors import (
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.checkpoint import Checkpoint, sign_checkpoint, verifier_key
from ehrfast.model.key_history import KeyHistory, Rotation
from ehrfast.model.proof import Evidence
from ehrfast.witness import Witness, WitnessServer, follow_log

OLD = "11" * 32
NEW = "22" * 32


@pytest.fixture
def folder(tmp_path: Path, patients: Path) -> Path:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        node.import_fhir(patients)
    return tmp_path / "clinic.ehr"


def contents(node: Node) -> dict[str, bytes]:
    doctor = node.identities.enrol("reader", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        return {row.reference: session.read(row.reference).content for row in session.list("Observation")[:5]}


def test_a_new_root_key_opens_and_the_old_one_does_not(folder: Path) -> None:
    old = bytes.fromhex((folder / "root.key").read_text().strip())
    with Node.open(folder) as node:
        before = contents(node)
        source = node.rotate_root_key()
        assert contents(node) == before  # without stopping
    assert source.kind == "file"
    assert not (folder / "root.key").exists()
    assert (folder / source.path).stat().st_mode & 0o777 == 0o600
    with pytest.raises(DeniedError, match=r"keys\.wrong_root_key"):
        KeyStore.open(str(folder / "keys"), old, read_only=True)
    with Node.open(folder) as node:
        assert contents(node) == before
        assert node.rotate_root_key().path != source.path
    assert Node.fsck_folder(folder).ok


def test_a_root_key_moves_between_its_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Node.open(folder) as node:
        with pytest.raises(NotFoundError, match=r"root_key\.missing"):
            node.rotate_root_key("environment")
        assert node.settings.next_root_key is None
        monkeypatch.setenv("EHRFAST_NEW_ROOT_KEY", OLD)
        node.rotate_root_key("environment")
        before = contents(node)
    assert not list(folder.glob("*.key"))
    with pytest.raises(NotFoundError, match=r"root_key\.missing"):
        Node.open(folder)
    monkeypatch.setenv("EHRFAST_ROOT_KEY", OLD)
    with Node.open(folder) as node:
        monkeypatch.setenv("EHRFAST_NEW_ROOT_KEY", NEW)
        node.rotate_root_key()
    with pytest.raises(DeniedError, match=r"keys\.wrong_root_key"):
        Node.open(folder)
    monkeypatch.setenv("EHRFAST_ROOT_KEY", NEW)
    with Node.open(folder) as node:
        monkeypatch.setenv("EHRFAST_NEW_PASSPHRASE", "a phrase")
        node.rotate_root_key("passphrase")
    monkeypatch.setenv("EHRFAST_PASSPHRASE", "a phrase")
    monkeypatch.delenv("EHRFAST_ROOT_KEY")
    with Node.open(folder) as node:
        assert contents(node) == before
        node.rotate_root_key("file")
    monkeypatch.delenv("EHRFAST_PASSPHRASE")
    with Node.open(folder) as node:
        assert contents(node) == before


class StopError(Exception):
    """Power goes."""


@pytest.mark.parametrize("step", ["before the key store", "after the key store", "before the old file goes"])
def test_a_change_of_root_key_cut_off_is_done_or_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    import ehrfast.node.node as module

    def stop(*_: object) -> None:
        raise StopError

    copy = tmp_path / "copy.ehr"
    with Node.open(folder) as node, monkeypatch.context() as cut:
        if step == "before the old file goes":
            cut.setattr(module, "destroy_key_file", stop)
        elif step == "before the key store":
            cut.setattr(node, "_keys", _Cut(node._keys, stop))
        else:
            cut.setattr(module.Settings, "save", _once(module.Settings.save, stop))
        with pytest.raises(StopError):
            node.rotate_root_key()
        shutil.copytree(folder, copy)
    assert Node.fsck_folder(copy).ok
    Node.open(copy, read_only=True).close()
    with Node.open(copy) as node:
        assert node.settings.next_root_key is None
        assert len(contents(node)) == 5
    left = {path.name for path in copy.glob("*.key")}
    expected = {"before the key store": 1, "after the key store": 1, "before the old file goes": 2}
    assert len(left) == expected[step]
    assert ("root.key" in left) == (step != "after the key store")


class _Cut:
    def __init__(self, keys: KeyStore, stop: object) -> None:
        self._keys = keys
        self.rotate_root = stop

    def __getattr__(self, name: str) -> object:
        return getattr(self._keys, name)


def _once(save: object, stop: object) -> object:
    calls = []

    def saved(settings: object, folder: Path) -> None:
        calls.append(settings)
        (save if len(calls) == 1 else stop)(settings, folder)  # type: ignore[operator]

    return saved


def test_at_rest_keys_change_from_the_next_block_on(folder: Path, patients: Path) -> None:
    with Node.open(folder) as node:
        before = contents(node)
        generation = node._keys.generation
        (state,) = node._keys.ids("state")
        height = node.chain.published.height
        node.rotate_at_rest()
        assert node._keys.generation > generation
        assert node.status().state_rotation_due
        assert contents(node) == before  # which writes its audit events
        assert node.chain.segments.last_segment_height == height + 1
    with Node.open(folder) as node:
        assert not node.status().state_rotation_due
        assert state not in node._keys.ids("state")
        assert len(node._keys.ids("state")) == 1
        assert contents(node) == before
    assert Node.fsck_folder(folder).ok


def test_a_segment_that_was_due_begins_after_a_restart_too(folder: Path) -> None:
    with Node.open(folder) as node:
        height = node.chain.published.height
        node.rotate_at_rest()
        assert node.chain.segments.last_segment_height == 0
    for _ in range(2):
        with Node.open(folder) as node:
            contents(node)
            assert node.chain.segments.last_segment_height == height + 1


def evidence_of(node: Node) -> tuple[Evidence, bytes]:
    doctor = node.identities.enrol("prover", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        reference = session.list("Observation")[0].reference
        content = session.read(reference).content
        return session.prove(reference, disclose=True), content


def test_evidence_of_every_key_verifies_from_the_history(folder: Path, tmp_path: Path) -> None:
    with Node.open(folder) as node:
        trial = node.add_chain("trial")
        found = [(node.verifier_key, evidence_of(node)[0])]
        for _ in range(2):
            key = node.rotate_checkpoint_key()
            assert node.verifier_key == key
            assert trial.key_history.current.public_key == node.key_history.current.public_key
            found.append((key, evidence_of(node)[0]))  # without stopping
        assert node.fsck().ok
        history = node.key_history
    published = tmp_path / "clinic.keys"
    published.write_bytes(history.render())
    assert [each.encode() for each in history.keys] == [key for key, _ in found]
    for number, (key, evidence) in enumerate(found):
        verify(evidence, key=key)
        for trusted, _ in found:
            verify(evidence, key=trusted, history=published)
        for other, (stranger, _) in enumerate(found):
            if other != number:
                with pytest.raises(VerificationError, match=r"checkpoint\.not_signed"):
                    verify(evidence, key=stranger)
    with pytest.raises(VerificationError, match=r"key_history\.other_log"):
        verify(found[0][1], key=verifier_key(history.founding.name, SigningKey.generate().public_key), history=history)
    for _ in range(2):
        assert Node.fsck_folder(folder).ok
        with Node.open(folder) as node:
            assert node.key_history == history
            verify(evidence_of(node)[0], key=found[0][0], history=history)
    with Node.open(folder, read_only=True) as node:
        assert node.key_history == history


def test_a_former_key_counts_only_for_its_own_sizes(folder: Path) -> None:
    with Node.open(folder) as node:
        former = SigningKey.from_seed(node._keys.get("node", b"checkpoint") or b"")
        node.rotate_checkpoint_key()
        size = node.key_history.rotations[-1].tree_size
        contents(node)
        published = node.chain.published
        assert published.tree_size > size
        late = sign_checkpoint(Checkpoint(node.chain.chain_id, published.tree_size, published.log_root), former)
        with pytest.raises(VerificationError, match=r"checkpoint\.key_not_in_force"):
            node.key_history.open_checkpoint(late)
        assert node._keys.get("node", b"checkpoint") != former.seed()


class _Replaced:
    def __init__(self, keys: KeyStore, before: bool) -> None:
        self._keys = keys
        self._before = before

    def replace(self, kind: str, identifier: bytes, value: bytes) -> None:
        if not self._before:
            self._keys.replace(kind, identifier, value)
        raise StopError

    def __getattr__(self, name: str) -> object:
        return getattr(self._keys, name)


@pytest.mark.parametrize("before", [True, False])
def test_a_change_of_checkpoint_key_cut_off_is_done_or_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    copy = tmp_path / "copy.ehr"
    with Node.open(folder) as node:
        founding = node.verifier_key
        with monkeypatch.context() as cut:
            cut.setattr(node, "_keys", _Replaced(node._keys, before))
            with pytest.raises(StopError):
                node.rotate_checkpoint_key()
            with pytest.raises(UnavailableError, match=r"chain\.stopped"):
                contents(node)
            shutil.copytree(folder, copy)
    assert Node.fsck_folder(copy).ok
    with Node.open(copy) as node:
        assert len(node.key_history.rotations) == (0 if before else 1)
        assert (node.verifier_key == founding) == before
        verify(evidence_of(node)[0], key=founding, history=node.key_history)
    assert (copy / "chains" / "main" / FILE).exists() != before
    assert Node.fsck_folder(copy).ok


def test_a_history_that_is_gone_or_changed_is_named(folder: Path) -> None:
    with Node.open(folder) as node:
        node.rotate_checkpoint_key()
    file = folder / "chains" / "main" / FILE
    sound = file.read_bytes()
    for changed, code in [(None, "keys.history_missing"), (sound.replace(b"1", b"2", 1), "keys.history_damaged")]:
        file.unlink() if changed is None else file.write_bytes(changed)
        assert (FILE, code) in {(fault.file, fault.kind) for fault in Node.fsck_folder(folder).faults}
        with pytest.raises(CorruptionError, match=r"keys\.history|checkpoint\.not_signed") as refused:
            Node.open(folder)
        assert refused.value.code == code
    file.write_bytes(sound)
    assert Node.fsck_folder(folder).ok


def test_a_witness_follows_the_history_and_refuses_the_former_key(folder: Path, tmp_path: Path) -> None:
    with (
        Witness.create(tmp_path / "witness") as witness,
        WitnessServer(witness) as server,
        Node.open(folder) as node,
    ):
        witness.add_log(node.verifier_key)
        node.add_witness(server.url, witness.vkey)
        founding = node.verifier_key
        before = evidence_of(node)[0]
        node.rotate_checkpoint_key()
        contents(node)
        with pytest.raises(UnavailableError, match=r"checkpoint\.quorum_missed"):
            node.chain.prove([], quorum=1, timeout=1.0)
        (state,) = node.witnesses()
        assert state.failure == "witness.signature_refused"
        follow_log(tmp_path / "witness", node.key_history.render())
        evidence = node.chain.prove([("records", (bytes(16),))], quorum=1)
        assert evidence
        history = node.key_history
        verify(before, key=founding, history=history, witnesses=[witness.vkey])
    with Node.open(folder, read_only=True) as node:  # what was cosigned is read again under the history
        assert len(node.status().cosignatures) == 1
    assert len(list((tmp_path / "witness" / "logs").glob("*.vkey"))) == 1
    stranger = Rotation.sign("log", 1, SigningKey.generate(), SigningKey.generate())
    with pytest.raises(NotFoundError, match=r"witness\.unknown_log"):
        follow_log(tmp_path / "witness", KeyHistory(stranger.former, (stranger,)).render())


def test_a_backup_restores_across_a_change_of_checkpoint_key(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with Node.open(folder) as node:
        founding = node.verifier_key
        node.backup(target)
        node.rotate_checkpoint_key()
        before = contents(node)
        node.backup(target)
        note, history = node.chain.published.note, node.key_history
    key = Node.backup_root_key(folder)
    Node.restore(target, tmp_path / "again.ehr", key, checkpoint=note)
    with Node.open(tmp_path / "again.ehr") as node:
        assert node.key_history == history
        assert contents(node) == before
        verify(evidence_of(node)[0], key=founding, history=history)
    assert Node.fsck_folder(tmp_path / "again.ehr").ok


def test_a_reader_beside_the_writer_changes_no_key(folder: Path) -> None:
    with Node.open(folder, read_only=True) as node:
        for rotate in (node.rotate_root_key, node.rotate_at_rest, node.rotate_checkpoint_key):
            with pytest.raises(UnavailableError, match=r"chain\.read_only"):
                rotate()
        with pytest.raises(InvalidInputError, match=r"keys\.unknown_rotation"):
            node.rotate_keys("moon")  # type: ignore[arg-type]


def test_a_backup_that_meets_a_change_of_the_checkpoint_key_is_refused_and_the_next_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ehrfast.node.node as module

    openings: list[Path] = []

    def changing(path: Path, settings: object, *, read_only: bool) -> object:
        openings.append(path)
        if len(openings) == 2:  # the chains are open by now
            node.rotate_checkpoint_key()
        return open_keys(path, settings, read_only=read_only)

    open_keys: Callable[..., object] = module.open_keys
    with Node.open(folder) as node:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(module, "open_keys", changing)
            with pytest.raises(UnavailableError) as refused:
                node.backup(tmp_path / "target")
        assert refused.value.code == "backup.keys_changing"
        assert node.backup(tmp_path / "target").height == node.chain.published.height
