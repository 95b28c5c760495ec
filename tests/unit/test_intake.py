"""The way into a chain: a large hand-in goes through in parts, in its order, and a repeat is found across the parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast._core import SigningKey
from ehrfast.access.sign import sign_call
from ehrfast.chain import chain as chain_module
from ehrfast.chain.admit import Submission
from ehrfast.chain.replay import ReplayWindow
from ehrfast.errors import ConflictError, InvalidInputError, VerificationError

from tests.conftest import code_of

PART = 8


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "ADMISSION_ITEMS", PART)


def test_parts_keep_the_order_and_find_repeats(tmp_path: Path) -> None:
    """The sender is unknown, so every call fails in its contract; it gets its leaf all the same."""
    with Node.create(tmp_path / "node", organisation="North") as node:
        stranger = SigningKey.generate()
        signed = [
            sign_call(node.chain, stranger, "records", "post_epochs", {"epochs": ()}) for _ in range(2 * PART + 3)
        ]
        forged = bytearray(signed[3].received)
        forged[-1] ^= 1
        handed_in = [*(Submission(one.received) for one in signed), Submission(signed[1].received)]
        pending = node.chain.submit_many([*handed_in, Submission(bytes(forged))])
        receipts = [one.outcome(timeout=30) for one in pending[: len(signed)]]
        assert [receipt.id for receipt in receipts] == [one.id for one in signed]
        indexes = [receipt.index for receipt in receipts]
        assert indexes == sorted(set(indexes))
        with pytest.raises(ConflictError) as repeated:
            pending[len(signed)].outcome(timeout=30)
        assert code_of(repeated) == "transaction.replayed"
        with pytest.raises(VerificationError) as bad:
            pending[len(signed) + 1].outcome(timeout=30)
        assert code_of(bad) == "signature.invalid"
        with pytest.raises(ConflictError):
            node.chain.submit(signed[-1]).outcome(timeout=30)
        assert node.chain._executed([signed[0].id, bytes(32)]) == {signed[0].id}


def test_the_window_gives_those_it_knows() -> None:
    window = ReplayWindow()
    window.add([b"a", b"b"], 0)
    assert window.known([b"b", b"c", b"b"]) == {b"b"}
    window.forget_before(3 * 60 * 60 * 1000)
    assert window.known([b"a", b"b"]) == set()


def test_numbered_arguments_are_judged_when_the_call_runs(tmp_path: Path) -> None:
    with Node.create(tmp_path / "node", organisation="North") as node:
        key = node.signing_keys.get(node.settings.gateway).key
        wrong = sign_call(node.chain, key, "records", "put", {1: ("not a row",)}, numbered=True)
        with pytest.raises(InvalidInputError) as refused:
            node.chain.submit(wrong).result(timeout=30)
        assert code_of(refused) == "contract.bad_arguments"


def test_import_reads_ahead_and_names_the_bad_file(tmp_path: Path, patients: Path) -> None:
    (patients / "1b.json").write_bytes(b'{"resourceType": ')
    told: list[tuple[int, int]] = []
    with Node.create(tmp_path / "node", organisation="North") as node:
        report = node.import_fhir(patients, progress=lambda done, there: told.append((done, there)))
        assert [(Path(one.file).name, one.code) for one in report.rejected] == [("1b.json", "fhir.invalid_json")]
        assert report.transactions == 3
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
