"""FHIR JSON keeps every decimal as it was written and refuses what JSON has no form for."""

from __future__ import annotations

import pytest
from ehrfast.errors import InvalidInputError
from ehrfast.fhir.json import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = ["1.50", "0.0", "-0.10", "1e2", "1.0E-7", "100000000000000000000.000000000001", "7", "-3"]


@pytest.mark.parametrize("written", NUMBERS)
def test_a_number_leaves_as_it_came(written: str) -> None:
    content = b'{"resourceType":"Observation","value":' + written.encode() + b"}"
    assert dumps(loads(content)) == content


SCALARS = st.text() | st.booleans() | st.integers() | st.none()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_round_trip(value: object) -> None:
    resource = {"resourceType": "Basic", "extension": value}
    assert loads(dumps(resource)) == resource


@pytest.mark.parametrize("bad", [b"{", b"[1]", b'{"a":NaN}', b'"text"', b'{"a":Infinity}', b"\xff", b"[" * 100_000])
def test_what_is_no_resource_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInputError):
        loads(bad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1: 2}, {"a": {1, 2}}, {"a": b"x"}])
def test_what_json_cannot_say_is_refused(bad: object) -> None:
    with pytest.raises(InvalidInputError):
        dumps({"resourceType": "Basic", "value": bad})


def test_depth_is_limited() -> None:
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"extension": deep}
    with pytest.raises(InvalidInputError, match=r"fhir\.too_deep"):
        dumps(deep)
