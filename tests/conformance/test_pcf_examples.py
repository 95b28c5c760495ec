"""The examples of IHE Privacy Consent on FHIR, in our own words, and what its notes say becomes of each request.

Source: IHE ITI PCF 1.1, Artifacts; residuals from the notes on their access tokens.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_consent import actors, ask, consent, labels, purposes, record, released

Json = dict[str, Any]
NORMAL_USE = purposes("TREAT", "HPAYMT", "HOPERAT")
YEAR = {"start": "2022-01", "end": "2022-12"}
DOCTOR = actors("Practitioner/a")
PRIVILEGED = actors("Group/privileged")
GROUPS = {"Practitioner/a": {"memberOf": ["Group/privileged"]}, "Practitioner/b": {"memberOf": []}}


def data(meaning: str, *references: str) -> list[Json]:
    return [{"meaning": meaning, "reference": {"reference": each}} for each in references]


def permit(*exceptions: Json, **elements: Any) -> Json:
    return consent("permit", *exceptions, **{"purpose": NORMAL_USE, **elements})


RECORDS = [
    record(1, "N", date="2022-06-01", author=["Practitioner/w"], related=["Encounter/e"]),
    record(2, "N", date="2023-06-01", author=["Practitioner/v"], related=["Encounter/f"]),
    record(3, "R", "PSY", date="2021-06-01"),
    record(4, "R", "SDV", date="2021-06-01"),
    record(5, "R", "HIV", date="2021-06-01"),
]
EXAMPLES: dict[str, tuple[Json, str, Json]] = {
    "basic treat": (permit(), "11111", {}),
    "basic treat, another purpose": (permit(), "00000", {"purpose": ["HRESCH"]}),
    "basic reject": (consent("deny", purpose=NORMAL_USE), "00000", {}),
    "expired treat": (permit(period={"end": "2022-12-31"}), "00000", {}),
    "timeframe": (permit(dataPeriod=YEAR), "10000", {}),
    "not timeframe": (permit({"type": "deny", "dataPeriod": YEAR}), "01111", {}),
    "authored by": (permit(data=data("authoredby", "Practitioner/w")), "10000", {}),
    "not authored by": (permit({"type": "deny", "data": data("authoredby", "Practitioner/w")}), "01111", {}),
    "encounter": (permit(data=data("related", "Encounter/e")), "10000", {}),
    "not encounter": (permit({"type": "deny", "data": data("related", "Encounter/e")}), "01111", {}),
    "data": (permit(data=data("instance", "Observation/1", "Observation/3")), "10100", {}),
    "not data": (permit({"type": "deny", "data": data("instance", "Observation/3")}), "11011", {}),
    "a project": (
        consent(purpose=[{"system": "http://example.org/uses", "code": "FooBar"}], actor=actors("Organization/o1")),
        "11111",
        {"purpose": ["http://example.org/uses|FooBar"]},
    ),
    "a project, for treatment": (
        consent(purpose=[{"system": "http://example.org/uses", "code": "FooBar"}], actor=actors("Organization/o1")),
        "00000",
        {},
    ),
    "normal": (permit(securityLabel=labels("N")), "11000", {}),
    "normal and restricted": (permit(securityLabel=labels("N", "R")), "11111", {}),
    "normal, not restricted": (
        permit({"type": "deny", "securityLabel": labels("R")}, securityLabel=labels("N")),
        "11000",
        {},
    ),
    "focused restricted": (
        permit({"type": "permit", "securityLabel": labels("R"), "actor": DOCTOR}, securityLabel=labels("N")),
        "11111",
        {},
    ),
    "focused restricted, others": (
        permit({"type": "permit", "securityLabel": labels("R"), "actor": DOCTOR}, securityLabel=labels("N")),
        "11000",
        {"requester": {"reference": "Practitioner/b"}},
    ),
    "focused mental and sexual health": (
        permit({"type": "permit", "securityLabel": labels("PSY", "SDV"), "actor": DOCTOR}, securityLabel=labels("N")),
        "11110",
        {},
    ),
    "break-glass to restricted, ordinary use": (
        permit(
            {"type": "permit", "securityLabel": labels("R"), "actor": PRIVILEGED, "purpose": purposes("BTG")},
            securityLabel=labels("N"),
        ),
        "11000",
        {"directory": GROUPS},
    ),
    "break-glass to restricted, declared": (
        permit(
            {"type": "permit", "securityLabel": labels("R"), "actor": PRIVILEGED, "purpose": purposes("BTG")},
            securityLabel=labels("N"),
        ),
        "11111",
        {"directory": GROUPS, "purpose": ["BTG"]},
    ),
    "dissent but break-glass, ordinary use": (
        consent("deny", {"type": "permit", "actor": PRIVILEGED, "purpose": purposes("BTG")}),
        "00000",
        {"directory": GROUPS},
    ),
    "dissent but break-glass, declared": (
        consent("deny", {"type": "permit", "actor": PRIVILEGED, "purpose": purposes("BTG")}),
        "11111",
        {"directory": GROUPS, "purpose": ["BTG"]},
    ),
    "dissent but break-glass, who may not": (
        consent("deny", {"type": "permit", "actor": PRIVILEGED, "purpose": purposes("BTG")}),
        "00000",
        {"directory": GROUPS, "purpose": ["BTG"], "requester": {"reference": "Practitioner/b"}},
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_releases_what_its_notes_say(name: str) -> None:
    rule, wanted, changed = EXAMPLES[name]
    answer = ask([rule], *RECORDS, **changed)
    assert "".join(str(int(each)) for each in released(answer)) == wanted
    assert answer["access"] is ("1" in wanted)
    assert answer["total"] == wanted.count("1")


@pytest.mark.parametrize(
    ("name", "residual"),
    [
        ("basic treat", []),
        ("normal", [("permit", "label", ["N"])]),
        ("normal and restricted", [("permit", "label", ["N", "R"])]),
        ("normal, not restricted", [("permit", "label", ["N"]), ("forbid", "label", ["R"])]),
        ("focused mental and sexual health", [("permit", "label", ["PSY", "SDV"]), ("permit", "label", ["N"])]),
        ("not data", [("forbid", "data", ["Observation/3"])]),
        ("data", [("permit", "data", ["Observation/1", "Observation/3"])]),
        ("not authored by", [("forbid", "author", ["Practitioner/w"])]),
        ("encounter", [("permit", "data", ["Encounter/e"])]),
        ("dissent but break-glass, declared", []),
    ],
)
def test_the_obligations_are_the_residual_of_the_notes(name: str, residual: list[tuple[str, str, list[str]]]) -> None:
    rule, _, changed = EXAMPLES[name]
    told = ask([rule], *RECORDS, **changed)["obligations"]
    assert [(each["effect"], each["by"], each["values"]) for each in told] == residual
