"""The splitter against json and the slow twin, over generated documents and their mutations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ehrfast import _core
from ehrfast.errors import InvalidInputError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reference.bundle import NotJson, Scanner, split_bundle

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
types = st.sampled_from(["Observation", "Condition", "Claim", "Coverage", "ResearchSubject", "Organization"])
elements = {"Observation": "subject", "Condition": "subject", "Claim": "patient", "Coverage": "beneficiary",
            "ResearchSubject": "individual"}  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for number in range(draw(st.integers(0, 17))):
        resource_type = draw(types)
        content: dict[str, Any] = {"resourceType": resource_type, "id": f"r{number}"}
        if resource_type in elements and draw(st.booleans()):
            content[elements[resource_type]] = {"reference": f"Patient/{draw(st.integers(0, 9))}"}
        content |= {f"x-{key}": value for key, value in draw(st.dictionaries(st.text(), values, max_size=3)).items()}
        names = draw(st.permutations(list(content)))
        made.append({"fullUrl": f"urn:uuid:{number}", "resource": {name: content[name] for name in names}})
    return made


# Hypothesis builds its table of characters once, in the first example, which takes seconds.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(entries(), st.sampled_from([None, 1, 4, "\t"]), st.booleans())
def test_generated_bundles_split_as_the_twin_splits_them(made: list[Any], indent: Any, ascii_only: bool) -> None:
    document = {"resourceType": "Bundle", "type": "collection", "entry": made}
    data = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    split, expected = _core.split_resources(data), split_bundle(data)
    assert split.spans.tolist() == [[entry.start, entry.end] for entry in expected]
    assert split.rows() == [(entry.type, entry.id, entry.full_url, entry.subject, entry.method) for entry in expected]
    for index, entry in enumerate(made):
        assert json.loads(split.content(index)) == entry["resource"]


BASE = json.dumps(
    {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [
            {
                "fullUrl": "urn:uuid:1",
                "resource": {"resourceType": "Flag", "id": "f", "subject": {"reference": "Patient/1"}, "n": -1.5e3},
                "request": {"method": "POST", "url": "Flag"},
            }
        ],
        "x": [True, False, None, "é\u0001\\", {}, [], 0],
    }
).encode()


def twin_verdict(data: bytes) -> tuple[str, int] | None:
    """The fault of encoding or grammar the twin finds first, and where."""
    try:
        Scanner(data).document()
    except UnicodeDecodeError as error:
        return "fhir.invalid_utf8", error.start
    except NotJson as error:
        return "fhir.invalid_json", error.offset
    return None


def verdict(data: bytes) -> tuple[str, int] | None:
    try:
        _core.split_resources(data)
    except InvalidInputError as error:
        if error.code in ("fhir.invalid_utf8", "fhir.invalid_json"):
            return error.code, int(str(error.details["offset"]))
    return None


@pytest.mark.parametrize("length", range(len(BASE)))
def test_cut_anywhere_it_is_refused(length: int) -> None:
    found = verdict(BASE[:length])
    assert found is not None
    assert found == twin_verdict(BASE[:length])


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(BASE) - 1), st.binary(max_size=3), st.integers(0, 4))
def test_mutations_are_judged_as_the_twin_judges_them(at: int, inserted: bytes, removed: int) -> None:
    data = BASE[:at] + inserted + BASE[at + removed :]
    assert verdict(data) == twin_verdict(data)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet='{}[]",:\\utrfnals0123456789eE+-. \n\t\u00e9', max_size=40))
def test_any_text_of_json_marks_is_judged_as_the_twin_judges_it(inner: str) -> None:
    data = b'{"resourceType":"Flag","a":' + inner.encode() + b"}"
    assert verdict(data) == twin_verdict(data)


@given(st.binary())
def test_any_bytes_give_a_verdict(data: bytes) -> None:
    assert verdict(data) == twin_verdict(data)
    _core.split_ndjson(data)
