"""Backup and restore over a folder: equal roots, incremental, and everything that a restore must refuse."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast._core import KeyStore, SigningKey
from ehrfast.backup import make
from ehrfast.backup.erased import ERASED, Erasure, append_erasures
from ehrfast.backup.manifest import MANIFESTS, list_manifests, read_manifest
from ehrfast.backup.prune import prune_backups
from ehrfast.backup.target import FolderTarget
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    VerificationError,
)
from ehrfast.keys.backup_key import combine_shares, read_sealed, write_sealed, write_shares
from ehrfast.keys.root_key import read_root_key
from ehrfast.model.ask_witness import WitnessAddress
from ehrfast.node import Settings
from ehrfast.synthetic import generate_bundles
from ehrfast.witness import Witness, WitnessServer

from tests.conftest import code_of

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Place:
    node: Path
    target: Path
    key: bytes


@pytest.fixture
def place(tmp_path: Path, patients: Path) -> Place:
    """A node with three patients, backed up once."""
    folder = tmp_path / "clinic.ehr"
    with Node.create(folder, organisation="Clinic North") as node:
        node.import_fhir(patients)
        node.backup(tmp_path / "target")
    return Place(folder, tmp_path / "target", Node.backup_root_key(folder))


def standing(node: Node) -> tuple[object, ...]:
    published = node.chain.published
    return published.height, published.log_root, published.state_root, published.note


def more(tmp_path: Path, seed: int) -> Path:
    folder = tmp_path / f"more-{seed}"
    folder.mkdir()
    (folder / "0.json").write_bytes(next(iter(generate_bundles(1, seed=seed))))
    return folder


@pytest.fixture
def witness(tmp_path: Path, place: Place) -> Iterator[WitnessAddress]:
    with Node.open(place.node, read_only=True) as node:
        key = node.verifier_key
    with Witness.create(tmp_path / "witness") as watching, WitnessServer(watching) as server:
        watching.add_log(key)
        yield WitnessAddress(server.url, watching.vkey)


def test_a_restored_node_has_equal_roots_and_reads_the_same_records(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        before = standing(node)
        doctor = node.identities.enrol("physician-1", role="physician")
        with node.session(doctor, purpose="TREAT") as session:
            listed = session.list("Observation")[0].reference
            content = session.read(listed).content
        node.backup(place.target)
        after = standing(node)
    assert before != after
    report = Node.restore(place.target, tmp_path / "again", place.key, checkpoint=after[3])  # type: ignore[arg-type]
    assert report.writable
    assert (report.height, bytes.fromhex(report.log_root), bytes.fromhex(report.state_root)) == after[:3]
    with Node.open(tmp_path / "again") as node:
        assert standing(node) == after
        with node.session(doctor, purpose="TREAT") as session:
            assert session.read(listed).content == content
        assert node.fsck().ok


def test_a_restored_node_is_for_reading_until_a_checkpoint_matches(place: Place, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert not Node.restore(place.target, again, place.key).writable
    with Node.open(again, read_only=True) as node:
        note = node.chain.published.note
    with pytest.raises(ConflictError) as refused:
        Node.open(again)
    assert code_of(refused) == "node.restored"
    assert not Node.allow_writing(again)
    with Node.open(place.node) as node:
        node.import_fhir(more(tmp_path, 11))
        newer = node.chain.published.note
    with pytest.raises(ConflictError) as refused:
        Node.allow_writing(again, checkpoint=newer)
    assert code_of(refused) == "checkpoint.not_the_head"
    with pytest.raises(NotFoundError) as unknown:
        Node.allow_writing(again, checkpoint=b"nonsense")
    assert code_of(unknown) == "checkpoint.other_log"
    with pytest.raises(ConflictError):
        Node.open(again)
    assert Node.allow_writing(again, checkpoint=note)
    Node.open(again).close()


def test_what_witnesses_cosigned_comes_back_too(place: Place, tmp_path: Path, witness: WitnessAddress) -> None:
    Node.restore(place.target, tmp_path / "first", place.key, witnesses=[witness])
    with Node.open(tmp_path / "first") as node:
        node.add_witness(witness.url, witness.vkey)
        node.backup(tmp_path / "cosigned")
        cosigned = node.status().cosignatures
    assert len(cosigned) == 1
    Node.restore(tmp_path / "cosigned", tmp_path / "second", place.key, witnesses=[witness])
    with Node.open(tmp_path / "second", read_only=True) as node:
        assert node.status().cosignatures == cosigned


def test_an_older_head_than_the_witness_knows_is_refused(
    place: Place, tmp_path: Path, witness: WitnessAddress
) -> None:
    report = Node.restore(place.target, tmp_path / "first", place.key, witnesses=[witness])
    assert (report.writable, list(report.witnesses.values())) == (True, [None])
    with Node.open(place.node) as node:
        node.add_witness(witness.url, witness.vkey)
        node.import_fhir(more(tmp_path, 12))
        node.chain.prove([], quorum=1)
    with pytest.raises(CorruptionError) as refused:
        Node.restore(place.target, tmp_path / "second", place.key, witnesses=[witness])
    assert code_of(refused) == "log.shorter_than_witnessed"
    assert not any((tmp_path / "second").iterdir())
    with Node.open(place.node) as node:  # the settings name the witness now
        node.backup(place.target)
    assert Node.restore(place.target, tmp_path / "third", place.key).writable


def test_only_what_is_new_is_copied(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        again = node.backup(place.target)
        log_bytes = sum(size for _, size in node.chain.segments.extents())
        node.import_fhir(more(tmp_path, 13))
        grown = sum(size for _, size in node.chain.segments.extents()) - log_bytes
        third = node.backup(place.target)
    keys = FolderTarget(place.target, place.key, create=False)
    listed = list_manifests(keys)
    manifests = [read_manifest(keys, each, keys.keys())[0] for each in reversed(listed)]
    written = [(place.target / each.name).stat().st_size for each in manifests]
    sealed_now = [sum(part.size for part in each.entries) + size for each, size in zip(manifests, written, strict=True)]
    assert again.copied_bytes == sealed_now[1]
    assert again.kept_bytes > log_bytes
    pieces = [each.chain().segments[0].pieces for each in manifests]
    assert pieces[0] == pieces[1] == pieces[2][:-1]
    assert pieces[2][-1].size == grown
    snapshot = manifests[2].chain().snapshot
    assert snapshot is not None
    fresh = snapshot.backup == manifests[2].id
    parts = (snapshot.head, *snapshot.leaves, *snapshot.states) if fresh else ()
    blobs = sum(blob.size for blob in set(manifests[2].blobs) - set(manifests[1].blobs))
    assert third.copied_bytes == grown + blobs + sealed_now[2] + sum(part.size for part in parts)
    assert [each.previous is None for each in manifests] == [True, False, False]


def test_every_changed_byte_and_missing_part_is_refused_by_name(place: Place, tmp_path: Path) -> None:
    objects = [path for path in sorted(place.target.rglob("*")) if path.is_file() and path.parent.name != "keys"]
    objects = [path for path in objects if path.name != "lock"]
    assert {path.parent.name for path in objects} == {"parts", "backups"}
    for number, path in enumerate(objects):
        whole = path.read_bytes()
        name = str(path.relative_to(place.target))
        path.chmod(0o600)
        for offset in {0, number * 37 % len(whole), len(whole) - 1} if number % 2 else {number * 37 % len(whole)}:
            changed = bytearray(whole)
            changed[offset] ^= 1
            path.write_bytes(changed)
            with pytest.raises(CorruptionError) as refused:
                Node.restore(place.target, tmp_path / "again", place.key)
            assert (code_of(refused), refused.value.details["part"]) == ("backup.part_damaged", name)
        path.unlink()
        with pytest.raises(NotFoundError) as missing:
            Node.restore(place.target, tmp_path / "again", place.key)
        expected = ("backup.none", None) if name.startswith(MANIFESTS) else ("backup.missing_part", name)
        assert (code_of(missing), missing.value.details.get("part")) == expected
        path.write_bytes(whole)
    assert Node.restore(place.target, tmp_path / "again", place.key).height


def test_a_wrong_key_and_a_full_folder_are_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DeniedError) as denied:
        Node.restore(place.target, tmp_path / "again", bytes(32))
    assert code_of(denied) == "keys.wrong_root_key"
    with pytest.raises(ConflictError) as full:
        Node.restore(place.target, place.node, place.key)
    assert code_of(full) == "node.exists"
    with pytest.raises(VerificationError) as other:
        Node.restore(place.target, tmp_path / "again", place.key, vkey="other")
    assert code_of(other) == "backup.other_signer"
    with pytest.raises(NotFoundError) as absent:
        Node.restore(tmp_path / "nothing", tmp_path / "again", place.key)
    assert code_of(absent) == "backup.not_there"


def test_a_target_of_another_node_or_of_a_later_height_is_refused(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.node, tmp_path / "copy")
    with Node.open(place.node) as node:
        node.import_fhir(more(tmp_path, 14))
        node.backup(place.target)
    with pytest.raises(ConflictError) as older:
        Node.backup_folder(tmp_path / "copy", place.target)
    assert code_of(older) == "backup.ahead"
    with Node.create(tmp_path / "other", organisation="Clinic South") as node, pytest.raises(DeniedError) as other:
        node.backup(place.target)
    assert code_of(other) == "keys.wrong_root_key"
    with Node.open(place.node, read_only=True) as node, pytest.raises(ConflictError) as stranger:
        node.backup(tmp_path)
    assert code_of(stranger) == "backup.not_a_target"


def test_a_height_is_chosen(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        height = node.chain.published.height
        node.import_fhir(more(tmp_path, 15))
        node.backup(place.target)
        assert node.chain.published.height > height
    report = Node.restore(place.target, tmp_path / "again", place.key, max_height=height)
    assert (report.sequence, report.height) == (1, height)
    with pytest.raises(NotFoundError) as none:
        Node.restore(place.target, tmp_path / "other", place.key, max_height=0)
    assert code_of(none) == "backup.no_such_height"


def test_what_was_erased_does_not_come_back(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        subject = node.subjects.by_id(node._keys.ids("subject")[0])
        assert subject is not None
        chain = node.chain
        erasure = Erasure(chain.chain_id, chain.published.height, 10**13, (("subject", subject.id),))
        until = node.list_erasures(place.target, [erasure])
        assert until > 0
        assert node.list_erasures(place.target, [erasure]) == until
        assert len(list((place.target / ERASED).iterdir())) == 1
    report = Node.restore(place.target, tmp_path / "again", place.key)
    assert report.erased == 1
    root = read_root_key(Settings.load(tmp_path / "again").root_key, tmp_path / "again")
    store = KeyStore.open(str(tmp_path / "again" / "keys"), root, read_only=True)
    assert store.get("subject", subject.id) is None
    assert len(store.ids("subject")) > 0
    (entry,) = (place.target / ERASED).iterdir()
    whole = entry.read_bytes()
    entry.chmod(0o600)
    for offset in range(0, len(whole), 7):
        entry.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(CorruptionError) as refused:
            Node.restore(place.target, tmp_path / "other", place.key)
        assert code_of(refused) == "backup.erased_list_damaged"
    entry.unlink()
    target = FolderTarget(place.target, place.key, create=True)
    append_erasures(target, [erasure], SigningKey.generate())
    target.close()
    with pytest.raises(CorruptionError):
        Node.restore(place.target, tmp_path / "other", place.key)


def test_erasures_of_the_node_are_listed_and_an_erased_record_does_not_come_back(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        patient = next(each for each in node.subjects._by_reference if each.startswith(("Patient/", "urn:")))
        subject = node.subjects.known(patient)
        assert subject is not None
        node.erase_patient(patient)
        node.backup(place.target)
        published = standing(node)
        record = node.chain.chain_id, node.chain.published.height + 1
    note, root = published[3], published[1]
    assert isinstance(note, bytes)
    assert isinstance(root, bytes)
    report = Node.restore(place.target, tmp_path / "again", place.key, checkpoint=note)
    assert (report.erased, report.log_root) == (1, root.hex())
    with Node.open(tmp_path / "again") as node:
        assert node.subjects.known(patient) is None
        assert node.fsck().ok
    with Node.open(place.node) as node:
        node.list_erasures(place.target, [Erasure(*record, 10**13, (("record", bytes(16)),))])
    with pytest.raises(ConflictError) as since:
        Node.restore(place.target, tmp_path / "other", place.key)
    assert code_of(since) == "backup.record_erased_since"


def test_pruning_destroys_the_keys_of_old_backups(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        node.import_fhir(more(tmp_path, 16))
        second = node.backup(place.target)
    target = FolderTarget(place.target, place.key, create=True)
    try:
        now = second.expires_ms - 30 * DAY_MS
        assert prune_backups(target, now).destroyed == ()
        first_id = list_manifests(target)[1].id
        sealed = target.keys()[first_id]
        assert prune_backups(target, second.expires_ms - 1).destroyed == (1,)
        medium = b"".join(path.read_bytes() for path in (place.target / "keys").iterdir())
        assert sealed not in target.keys().values()
        assert sealed not in medium
        assert prune_backups(target, second.expires_ms + DAY_MS).kept == (2,)  # the only one left
    finally:
        target.close()
    assert Node.restore(place.target, tmp_path / "again", place.key).sequence == 2
    with Node.open(place.node) as node:
        erasure = Erasure(node.chain.chain_id, 1, second.expires_ms, (("subject", bytes(16)),))
        node.list_erasures(place.target, [erasure])
    target = FolderTarget(place.target, place.key, create=True)
    assert prune_backups(target, second.expires_ms + DAY_MS).destroyed == (2,)
    target.close()
    assert not any((place.target / "parts").iterdir())
    with pytest.raises(NotFoundError) as none:
        Node.restore(place.target, tmp_path / "other", place.key)
    assert code_of(none) == "backup.none"


KILLED = """
import os, sys
from ehrfast import Node
from ehrfast.backup.target import FolderTarget
left = int(sys.argv[3])
put = FolderTarget.put
def dying(self, name, data):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    put(self, name, data)
FolderTarget.put = dying
Node.backup_folder(sys.argv[1], sys.argv[2])
"""


def test_a_killed_backup_is_none_and_the_next_one_uses_what_it_left(place: Place, tmp_path: Path) -> None:
    with Node.open(place.node) as node:
        node.import_fhir(more(tmp_path, 17))
    for parts in range(0, 20, 2):
        command = [sys.executable, "-c", KILLED, str(place.node), str(place.target), str(parts)]
        done = subprocess.run(command, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        assert len(list((place.target / "backups").glob("0*"))) == 1
    else:
        pytest.fail("the backup never finished")
    assert parts >= 4
    assert Node.restore(place.target, tmp_path / "again", place.key).sequence == 2
    target = FolderTarget(place.target, place.key, create=True)
    prune_backups(target, 0)
    assert len(target.keys()) == 2  # those of the cut short ones are gone
    target.close()


def test_nothing_sealed_twice_shares_a_byte_of_key_stream(place: Place, tmp_path: Path) -> None:
    Node.restore(place.target, tmp_path / "one", place.key)
    Node.restore(place.target, tmp_path / "two", place.key)
    Node.backup_folder(place.node, place.target)
    target = FolderTarget(place.target, place.key, create=False)
    manifests = [read_manifest(target, each, target.keys())[0] for each in list_manifests(target)]
    streams = [[target.get(part.name) for part in each.entries] for each in manifests]
    nodes = (place.node, tmp_path / "one", tmp_path / "two")
    stores = [[(folder / "keys" / "keys.entries").read_bytes()[64:]] for folder in nodes]
    for written in (streams, stores):
        seen: set[bytes] = set()
        for medium in written:
            blocks = {data[at : at + 16] for data in medium for at in range(len(data) - 15)}
            assert not seen & blocks
            seen |= blocks
    roots = {(folder / "root.key").read_bytes() for folder in nodes}
    assert len(roots) == 3


def test_the_exported_key_comes_back_from_shares_or_a_sealed_file(place: Place, tmp_path: Path) -> None:
    files = write_shares(tmp_path / "shares", place.key, threshold=3, shares=5)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert combine_shares([files[4], files[0], files[2]]) == place.key
    assert combine_shares(files) == place.key
    other = write_shares(tmp_path / "others", bytes(range(32)), threshold=3, shares=3)
    for wrong in ([], files[:2], [*files[:2], other[0]], [files[0]] * 3):
        with pytest.raises(InvalidInputError) as refused:
            combine_shares(wrong)
        assert code_of(refused) == "shares.refused"
    with pytest.raises(InvalidInputError):
        write_shares(tmp_path / "one", place.key, threshold=1, shares=3)
    write_sealed(tmp_path / "key.json", place.key, "correct horse")
    assert place.key.hex() not in (tmp_path / "key.json").read_text()
    assert read_sealed(tmp_path / "key.json", "correct horse") == place.key
    with pytest.raises(DeniedError) as denied:
        read_sealed(tmp_path / "key.json", "correct house")
    assert code_of(denied) == "backup_key.wrong_passphrase"


def test_beside_a_writer_a_backup_is_of_one_height(
    tmp_path: Path, patients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        key = Node.backup_root_key(tmp_path / "clinic.ehr")
        writing = threading.Thread(target=node.import_fhir, args=(patients,))
        writing.start()
        reports = [node.backup(tmp_path / "target") for _ in range(3)]
        writing.join()
        reports.append(node.backup(tmp_path / "target"))
        assert node.chain.published.height == reports[-1].height
        for report in (reports[0], reports[-1]):
            folder = tmp_path / f"at-{report.height}"
            again = Node.restore(tmp_path / "target", folder, key, max_height=report.height)
            assert again.log_root == node.chain.log.root(report.tree_size).hex()
    monkeypatch.setattr(make, "PIECE_BYTES", 50_000)
    Node.backup_folder(tmp_path / "clinic.ehr", tmp_path / "pieces")
    assert Node.restore(tmp_path / "pieces", tmp_path / "of-pieces", key).log_root == reports[-1].log_root
