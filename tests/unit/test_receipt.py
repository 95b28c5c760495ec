"""Receipts: their bytes, and the exception each failure code of the contracts stands for."""

from __future__ import annotations

import re
from pathlib import Path

import ehrfast.contracts
import pytest
from ehrfast.errors import ConflictError, DeniedError, EhrfastError, InvalidInputError, NotFoundError
from ehrfast.model.receipt import Receipt, call_error
from hypothesis import given
from hypothesis import strategies as st

EXPECTED = {
    "access.sequence_gap": ConflictError,
    "access.not_audit": InvalidInputError,
    "contract.broken": InvalidInputError,
    "contract.unknown": NotFoundError,
    "identity.exists": ConflictError,
    "identity.no_key": DeniedError,
    "identity.not_permitted": DeniedError,
    "identity.self_issue": DeniedError,
    "identity.unknown_role": InvalidInputError,
    "records.duplicate_record": InvalidInputError,
    "records.epoch_stale": ConflictError,
    "records.no_epoch": ConflictError,
    "records.not_custodian": DeniedError,
    "records.unknown": NotFoundError,
    "records.version_conflict": ConflictError,
}


@pytest.mark.parametrize(("code", "kind"), EXPECTED.items())
def test_a_failure_raises_its_kind_with_its_code(code: str, kind: type[EhrfastError]) -> None:
    failed = Receipt(bytes(32), 1, 2, code, 3, 0, ())
    with pytest.raises(kind) as raised:
        failed.require_applied()
    assert type(raised.value) is kind
    assert raised.value.code == code


def test_every_word_that_is_matched_is_one_a_contract_says() -> None:
    sources = "".join(path.read_text() for path in Path(ehrfast.contracts.__path__[0]).glob("*.py"))
    said = set(re.findall(r"\"[a-z]+\.([a-z_]+)\"", sources))
    matched = {code.rsplit(".", 1)[-1] for code in EXPECTED if type(call_error(code)) is not InvalidInputError}
    assert matched <= said


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**40), st.integers(0, 2**40), st.just(0) | st.just("a.b"))
def test_bytes_and_value_are_one(identifier: bytes, height: int, index: int, code: int | str) -> None:
    receipt = Receipt(identifier, height, index, code, 5, 1, (("toy", "Counted", (1, "x", b"y")),))
    assert Receipt.decode(receipt.encode()) == receipt


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_cut_receipt_is_refused(cut: int) -> None:
    with pytest.raises(InvalidInputError):
        Receipt.decode(Receipt(bytes(32), 1, 2, 0, 3, 4, ()).encode()[:cut])
