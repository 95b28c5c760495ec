"""Several chains in one node: each its own log and height, one folder, one key store, one life."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast._core import SigningKey
from ehrfast.access.sign import sign_call
from ehrfast.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError, UnavailableError


def enrolment(number: int) -> dict[str, object]:
    return {
        "identity": bytes([number]) * 16,
        "key": SigningKey.from_seed(bytes([number]) * 32).public_key,
        "custody": 1,
        "role": "physician",
        "from_ms": None,
        "until_ms": None,
        "subject": None,
    }


def test_two_chains_grow_apart_and_survive_reopening(tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    with Node.create(folder, organisation="Clinic North") as node:
        trial = node.add_chain("trial")
        assert set(node.chains) == {"main", "trial"}
        assert node.chain_named("trial") is trial
        assert trial.chain_id.startswith("trial-")
        assert trial.genesis.parent is None
        before = node.chain.published
        for number in (1, 2, 3):
            node.call("identity", "enrol", enrolment(number), chain="trial")
        assert node.chain.published == before
        assert trial.published.height == before.height + 3
        standing = {name: chain.published for name, chain in node.chains.items()}
    with Node.open(folder) as node:
        assert {name: chain.chain_id for name, chain in node.chains.items()} == {
            name: published.chain_id for name, published in standing.items()
        }
        for name, published in standing.items():
            again = node.chain_named(name).published
            assert (again.height, again.log_root, again.note) == (published.height, published.log_root, published.note)
            assert node.fsck(chain=name).ok
        assert node.fsck(chain="trial").blocks == standing["trial"].height + 1
        node.call("identity", "enrol", enrolment(4), chain="trial")
        assert node.chain.published.height == standing["main"].height


def test_a_transaction_of_one_chain_is_refused_by_the_other(tmp_path: Path) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        trial = node.add_chain("trial")
        key = node.signing_keys.get(node.settings.administrator).key
        call = sign_call(trial, key, "identity", "enrol", enrolment(1))
        with pytest.raises(InvalidInputError) as refused:
            node.chain.submit(call).result(timeout=30)
        assert refused.value.code == "transaction.wrong_chain"
        assert trial.submit(call).result(timeout=30).applied


def test_the_main_chain_is_what_the_settings_say_and_not_the_first_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    with Node.create(folder, organisation="Clinic North") as node:
        node.add_chain("a-trial")
        main = node.chain.chain_id
    assert json.loads((folder / "node.json").read_text())["main_chain"] == "main"
    with Node.open(folder) as node:
        assert node.chain.chain_id == main


def test_settings_of_another_format_are_not_guessed_at(tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    Node.create(folder, organisation="Clinic North").close()
    written = json.loads((folder / "node.json").read_text())
    (folder / "node.json").write_text(json.dumps({**written, "format": 1}, indent=2) + "\n")
    with pytest.raises(CorruptionError) as refused:
        Node.open(folder)
    assert refused.value.code == "node.settings_damaged"


@pytest.mark.parametrize("name", ["", "Trial", "../trial", "trial.new", "a" * 18])
def test_a_chain_needs_a_name_its_id_can_carry(tmp_path: Path, name: str) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        with pytest.raises(InvalidInputError) as refused:
            node.add_chain(name)
        assert refused.value.code == "genesis.name"
        assert {path.name for path in (node.folder / "chains").iterdir()} == {"main"}


def test_a_name_is_taken_once_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        with pytest.raises(ConflictError) as taken:
            node.add_chain("main")
        assert taken.value.code == "chain.exists"
        with pytest.raises(NotFoundError) as unknown:
            node.chain_named("trial")
        assert unknown.value.code == "chain.unknown"
    with Node.open(node.folder, read_only=True) as reader, pytest.raises(UnavailableError) as closed:
        reader.add_chain("trial")
    assert closed.value.code == "chain.read_only"


def test_what_a_crash_left_of_a_new_chain_is_no_chain_and_in_nobodys_way(tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    Node.create(folder, organisation="Clinic North").close()
    left = folder / "chains" / "trial.new"
    left.mkdir()
    (left / "genesis").write_bytes(b"half")
    with Node.open(folder) as node:
        assert set(node.chains) == {"main"}
        node.add_chain("trial")
        assert not left.exists()
    with Node.open(folder) as node:
        assert set(node.chains) == {"main", "trial"}


def test_a_chain_founded_and_cut_off_before_its_first_block_gets_its_gateway_at_the_next_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clinic.ehr"
    folder.mkdir()
    Node._make(folder, "Clinic North", "main", None)
    with Node.open(folder, read_only=True) as reader:
        assert reader.chain.published.height == 0
    with Node.open(folder) as node:
        assert node.chain.published.height == 1
        with monkeypatch.context() as crash:
            crash.setattr(Node, "_enrol_gateway", lambda node, chain: None)
            node.add_chain("trial")
    with Node.open(folder) as node:
        for chain in node.chains.values():
            assert chain.view("identity", "identity", {"id": node.settings.gateway}) is not None
        assert node.session(node.identities.gateway, purpose="TREAT")
        heights = [chain.published.height for chain in node.chains.values()]
    with Node.open(folder) as node:
        assert [chain.published.height for chain in node.chains.values()] == heights == [1, 1]
