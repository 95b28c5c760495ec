"""`consent decide` as outside scripts meet it: the answer's members, exit codes, and batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from tests.interface.test_cli import refused, run, told

Json = dict[str, Any]
NOW = "2026-06-30T12:00:00Z"
CONSENT: Json = {
    "resourceType": "Consent",
    "id": "c1",
    "meta": {"versionId": "2"},
    "status": "active",
    "scope": {"coding": [{"code": "patient-privacy"}]},
    "patient": {"reference": "Patient/p"},
    "dateTime": "2022-06-13",
    "provision": {
        "type": "permit",
        "period": {"end": "2026-12-31T00:00:00Z"},
        "provision": [
            {"type": "deny", "securityLabel": [{"code": "R"}]},
            {"type": "deny", "data": [{"meaning": "authoredby", "reference": {"reference": "Practitioner/w"}}]},
        ],
    },
}
REQUEST: Json = {
    "patient": "Patient/p",
    "requester": {
        "reference": "Practitioner/a", "identifiers": ["http://npi|1"], "roles": ["physician"],
        "organization": "Organization/o", "authorised": True, "clinician": True, "break_glass": False,
    },
    "purpose": ["TREAT"],
    "action": "access",
    "resources": [
        {"reference": "Observation/1", "type": "Observation", "codes": ["http://loinc.org|1"], "labels": ["N"],
         "date": "2026-01-02", "author": [], "related": ["Observation/2"]},
        {"reference": "Observation/2", "type": "Observation", "codes": [], "labels": ["R"], "date": "2026-01-02",
         "author": [], "related": []},
    ],
    "directory": {"Practitioner/a": {"memberOf": ["Group/g"], "identifiers": ["http://npi|1"]}},
    "site": {"no_consent": "deny", "combining": "deny_overrides"},
}  # fmt: skip
ANSWER: Json = {
    "decision": "permit",
    "access": True,
    "resources": [
        {"reference": "Observation/1", "release": True, "redact": ["related[0]"], "reason": "consent.permit"},
        {"reference": "Observation/2", "release": False, "redact": [], "reason": "consent.deny"},
    ],
    "total": 1,
    "obligations": [
        {"effect": "forbid", "by": "label", "values": ["R"]},
        {"effect": "forbid", "by": "author", "values": ["Practitioner/w"]},
    ],
    "basis": [{"consent": "Consent/c1", "version": "2"}],
    "reason": "consent.permit",
    "expires": "2026-12-31T00:00:00.000Z",
}


def asked(folder: Path, policies: Any, request: Any) -> tuple[object, ...]:
    (folder / "policies.json").write_text(json.dumps(policies), encoding="utf-8")
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    files = ("--policies", folder / "policies.json", "--request", folder / "request.json")
    return ("consent", "decide", *files, "--now", NOW)


def test_the_answers_members_are_fixed(tmp_path: Path) -> None:
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": CONSENT}]}
    for policies in ([CONSENT], bundle):
        assert told(*asked(tmp_path, policies, REQUEST)) == ANSWER
    assert b"permit" in run(*asked(tmp_path, [CONSENT], REQUEST)).stdout


def test_every_decision_exits_with_0(tmp_path: Path) -> None:
    denied = {**CONSENT, "provision": {"type": "deny"}}
    for policies, decision in (([CONSENT], "permit"), ([denied], "deny"), ([], "no_consent"), ([{"odd": 1}], "deny")):
        answer = told(*asked(tmp_path, policies, REQUEST))
        assert (answer["decision"], answer["access"]) == (decision, decision == "permit")
        assert set(answer) == set(ANSWER)


@pytest.mark.parametrize(
    "changed",
    [
        {"patient": None},
        {"requester": "Practitioner/a"},
        {"requester": {}},
        {"purpose": []},
        {"purpose": None},
        {"resources": [{}]},
        {"resources": [{"reference": "Observation/1", "label": ["R"]}]},
        {"break_glass": {"reason": "x"}},
        {"site": {"no_consent": "maybe"}},
        {"site": {"combining": "first"}},
        {"directory": []},
    ],
    ids=lambda each: json.dumps(each),
)
def test_a_request_that_is_none_exits_with_8(tmp_path: Path, changed: Json) -> None:
    assert refused(8, *asked(tmp_path, [CONSENT], {**REQUEST, **changed})) == "request.malformed"


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    command = asked(tmp_path, [CONSENT], REQUEST)
    assert refused(8, *command[:-1], "noon") == "request.malformed"
    assert refused(8, *asked(tmp_path, {"resourceType": "Patient"}, REQUEST)) == "consent.not_a_list"
    (tmp_path / "request.json").write_bytes(b"{")
    assert refused(8, *command) == "request.not_json"
    (tmp_path / "request.json").unlink()
    assert refused(4, *command) == "file.not_found"
    assert refused(2, "consent", "decide") == "usage"


def test_a_batch_is_ndjson_in_and_out(tmp_path: Path) -> None:
    lines = [{"policies": [CONSENT], "request": REQUEST, "now": NOW}, {"policies": [], "request": REQUEST, "now": NOW}]
    (tmp_path / "cases").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = run("consent", "decide", "--batch", tmp_path / "cases", "--json")
    assert done.returncode == 0
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first, second["decision"]) == (ANSWER, "no_consent")


def test_a_line_that_is_no_request_is_answered_by_its_error(tmp_path: Path) -> None:
    good = json.dumps({"policies": [CONSENT], "request": REQUEST, "now": NOW})
    (tmp_path / "cases").write_text(f"{good}\n{{\n[]\n\n{good}\n", encoding="utf-8")
    done = run("consent", "decide", "--batch", tmp_path / "cases", "--json")
    assert done.returncode == 8
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each.get("decision") for each in answers] == ["permit", None, None, "permit"]
    assert [each["error"]["code"] for each in answers if "error" in each] == ["request.not_json", "request.malformed"]
