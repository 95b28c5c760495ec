"""Changing keys of a running node: what is there stays readable, and the old keys open nothing that comes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast._core import KeyStore
from ehrfast.errors import DeniedError, InvalidInputError, NotFoundError, UnavailableError

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
    import ehrfast.node as module

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


def test_a_reader_beside_the_writer_changes_no_key(folder: Path) -> None:
    with Node.open(folder, read_only=True) as node:
        for rotate in (node.rotate_root_key, node.rotate_at_rest):
            with pytest.raises(UnavailableError, match=r"chain\.read_only"):
                rotate()
        with pytest.raises(InvalidInputError, match=r"keys\.unknown_rotation"):
            node.rotate_keys("moon")  # type: ignore[arg-type]
