"""Many writers: a full chain makes them wait and not fail, and versions of one record may be pipelined."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast.chain import chain as chain_module
from ehrfast.errors import UnavailableError


def basic(name: str, text: str) -> dict[str, object]:
    return {"resourceType": "Basic", "id": name, "code": {"text": text}}


def test_writers_wait_for_room_in_a_full_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "MAX_PENDING", 1)
    monkeypatch.setattr(chain_module, "SUBMIT_TIMEOUT_S", 5.0)
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        doctor = node.identities.enrol("physician-1", role="physician")
        faults: list[BaseException] = []

        def write(writer: int) -> None:
            try:
                with node.session(doctor, purpose="TREAT") as session:
                    receipts = [session.create(basic(f"b{writer}-{number}", "x")) for number in range(10)]
                    for receipt in receipts:
                        receipt.result(timeout=20)
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert faults == []
        assert node.status().records == 40


def test_versions_of_one_record_may_be_pipelined(tmp_path: Path) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        doctor = node.identities.enrol("physician-1", role="physician")
        with node.session(doctor, purpose="TREAT") as session:
            session.create(basic("one", "0")).result(timeout=20)
            receipts = [session.update(basic("one", str(number))) for number in range(1, 21)]
            for receipt in receipts:
                receipt.result(timeout=20)
            assert [row.version for row in session.history("Basic/one")] == list(range(21, 0, -1))
            assert session.read("Basic/one", version=8).json()["code"]["text"] == "7"


def test_a_write_that_was_not_taken_keeps_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        doctor = node.identities.enrol("physician-1", role="physician")
        with node.session(doctor, purpose="TREAT") as session:
            with monkeypatch.context() as patch:
                patch.setattr(node.chain, "submit", lambda *_: (_ for _ in ()).throw(UnavailableError("chain.busy")))
                with pytest.raises(UnavailableError):
                    session.create(basic("one", "0"))
            session.create(basic("one", "0")).result(timeout=20)
            assert session.read("Basic/one").version == 1
