"""What the splitter takes, what it refuses, and by which code."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ehrfast import _core
from ehrfast.errors import InvalidInputError

Json = dict[str, Any]


def resource(resource_type: str = "Observation", identifier: str = "a", **members: Any) -> Json:
    return {"resourceType": resource_type, "id": identifier, **members}


def bundle(*entries: Any, kind: str = "transaction") -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": list(entries)}).encode()


def entry(content: Json, **members: Any) -> Json:
    return {"resource": content, **members}


def patients(*contents: Json) -> list[str | None]:
    return [row[3] for row in _core.split_resources(bundle(*map(entry, contents))).rows()]


def refused(data: bytes, **options: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        _core.split_resources(data, **options)
    return caught.value


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "searchset", "history", "document", "message"])
def test_bundles_of_every_type_are_read_the_same_way(kind: str) -> None:
    split = _core.split_resources(bundle(entry(resource()), entry(resource("Patient", "p")), kind=kind))
    assert split.kind == f"Bundle:{kind}"
    assert [json.loads(split.content(i)) for i in range(2)] == [resource(), resource("Patient", "p")]
    assert len(split) == 2


def test_a_single_resource_keeps_its_bytes_and_not_the_white_space_around_it() -> None:
    data = b'\n\t {"id" : "x", "resourceType":"Patient" ,"n":1.50e+2}\r\n '
    split = _core.split_resources(data)
    assert (split.kind, split.rows()) == ("resource", [("Patient", "x", None, "Patient/x", None)])
    assert split.content(0) == data.strip()
    assert split.data is data


def test_arrays_are_taken_like_bytes_and_come_out_read_only() -> None:
    data = bundle(entry(resource()))
    array = np.frombuffer(data, dtype=np.uint8)
    split = _core.split_resources(array)
    assert split.data == data
    assert split.spans.dtype == np.uint64
    assert not split.spans.flags.writeable
    assert not split.entries.flags.writeable
    start, end = split.spans[0].tolist()
    assert json.loads(data[start:end]) == resource()
    with pytest.raises(IndexError):
        split.content(1)
    assert _core.split_resources(bundle()).spans.shape == (0, 2)


def test_rows_carry_what_the_entry_says() -> None:
    request = {"method": "PUT", "url": "Observation/a"}
    split = _core.split_resources(bundle(entry(resource(), fullUrl="urn:uuid:1", request=request)))
    assert split.rows() == [("Observation", "a", "urn:uuid:1", None, "PUT")]
    assert split.request_urls() == ["Observation/a"]


def test_texts_written_with_escapes_are_read_and_keys_cannot_hide_behind_them() -> None:
    data = rb'{"resource\u0054ype":"Observation","i\u0064":"a\u002db","subject":{"reference":"Patient\/1"}}'
    assert _core.split_resources(data).rows() == [("Observation", "a-b", None, "Patient/1", None)]
    twice = rb'{"resourceType":"Observation","id":"a","i\u0064":"b"}'
    assert refused(twice).code == "fhir.duplicate_key"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (resource(subject={"reference": "Patient/1"}), "Patient/1"),
        (resource(subject={"reference": "Group/1"}), None),
        (resource(subject={"reference": "urn:uuid:unknown"}), "urn:uuid:unknown"),
        (resource(subject={"reference": "urn:uuid:x", "type": "Group"}), None),
        (resource(subject={"reference": "#inside"}), None),
        (resource(subject={"identifier": {"value": "1"}}), None),
        (resource(subject={"reference": "https://h/fhir/Patient/1/_history/2"}), "https://h/fhir/Patient/1/_history/2"),
        (resource(subject={"reference": "Patient?identifier=s|1"}), "Patient?identifier=s|1"),
        (resource(subject={"reference": "Practitioner?name=x"}), None),
        (resource(performer=[{"reference": "Practitioner/1"}, {"reference": "Patient/2"}]), "Patient/2"),
        (resource(subject={"reference": "Device/1"}, performer=[{"reference": "Patient/2"}]), "Patient/2"),
        (resource(contained=[resource("Patient", "c")], focus=[{"reference": "Patient/9"}]), None),
        (resource("Appointment", participant=[{"actor": {"reference": "Location/1"}}, {"status": "accepted"},
                                              {"actor": {"reference": "Patient/3"}}]), "Patient/3"),
        (resource("Appointment", participant=[{"actor": {"reference": "urn:uuid:unknown"}}]), None),
        (resource("AuditEvent", agent=[{"who": {"reference": "Patient/4"}}],
                  entity=[{"what": {"reference": "Flag/1"}}, {"what": {"reference": "Patient/5"}}]), "Patient/5"),
        (resource("AuditEvent", agent=[{"who": {"reference": "Patient/4"}}]), "Patient/4"),
        (resource("Coverage", payor=[{"reference": "Patient/2"}], beneficiary={"reference": "Patient/1"}), "Patient/1"),
        (resource("ResearchSubject", individual={"reference": "Patient/1"}), "Patient/1"),
        ({"resourceType": "Task", "for": {"reference": "Patient/1"}}, "Patient/1"),
        (resource("EnrollmentRequest", candidate={"reference": "Patient/1"}), "Patient/1"),
        (resource("SupplyRequest", deliverTo={"reference": "Patient/1"}), "Patient/1"),
        (resource("Provenance", target=[{"reference": "Observation/1"}, {"reference": "Patient/1"}]), "Patient/1"),
        (resource("Person", link=[{"target": {"reference": "Patient/1"}}]), "Patient/1"),
        (resource("Account", subject=[{"reference": "Device/1"}, {"reference": "Patient/1"}]), "Patient/1"),
        (resource("Patient", "p", link=[{"other": {"reference": "Patient/q"}}]), "Patient/p"),
        (resource("Group", member=[{"entity": {"reference": "Patient/1"}}]), None),
        (resource("Organization"), None),
    ],
)  # fmt: skip
def test_the_patient_is_the_one_the_resource_is_about(content: Json, expected: str | None) -> None:
    assert patients(content) == [expected]
    assert _core.describe_resource(json.dumps(content).encode())[2] == expected


def test_the_order_of_members_does_not_matter() -> None:
    content = {"subject": {"reference": "Patient/1"}, "id": "a", "resourceType": "Observation"}
    assert patients(content) == ["Patient/1"]
    late = json.dumps({"entry": [entry(resource())], "type": "batch", "resourceType": "Bundle"}).encode()
    assert _core.split_resources(late).kind == "Bundle:batch"
    listed = resource("List", entry=[{"item": {"reference": "Patient/1"}}])
    assert _core.split_resources(json.dumps(listed).encode()).kind == "resource"


def test_a_full_url_tells_what_a_urn_reference_is() -> None:
    actors = [{"actor": {"reference": "urn:uuid:d"}}, {"actor": {"reference": "urn:uuid:p"}}]
    appointment = resource("Appointment", participant=actors)
    observation = resource("Observation", subject={"reference": "urn:uuid:d"})
    data = bundle(
        entry(appointment),
        entry(observation),
        entry({"resourceType": "Device"}, fullUrl="urn:uuid:d"),
        entry({"resourceType": "Patient"}, fullUrl="urn:uuid:p"),
    )
    assert [row[3] for row in _core.split_resources(data).rows()] == ["urn:uuid:p", None, None, "urn:uuid:p"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({}, "fhir.entry_without_resource"),
        ({"resource": None}, "fhir.entry_without_resource"),
        (7, "fhir.entry_without_resource"),
        ({"resource": 7}, "fhir.not_fhir"),
        ({"resource": {}}, "fhir.not_fhir"),
        ({"resource": {"resourceType": 1}}, "fhir.not_fhir"),
        ({"resource": {"resourceType": "Observatio"}}, "fhir.unknown_type"),
        ({"resource": {"resourceType": "DomainResource"}}, "fhir.unknown_type"),
        (entry(resource(identifier="")), "fhir.invalid_id"),
        (entry(resource(identifier="a" * 65)), "fhir.invalid_id"),
        (entry(resource(identifier="a_b")), "fhir.invalid_id"),
        (entry({"resourceType": "Observation", "id": 5}), "fhir.invalid_id"),
        (entry(resource(), fullUrl=5), "fhir.invalid_full_url"),
        (entry(resource(value=nested(64))), "fhir.too_deep"),
        ({"search": nested(70), **entry(resource())}, "fhir.too_deep"),
        (entry(resource("Patient", "first")), "fhir.duplicate_id"),
        (entry(resource("Device", "other"), fullUrl="urn:uuid:1"), "fhir.duplicate_full_url"),
        (entry(resource(text="x" * 1000)), "fhir.resource_too_large"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_refused_alone(bad: Any, code: str) -> None:
    first = entry(resource("Patient", "first", active=True), fullUrl="urn:uuid:1")
    last = entry(resource("Patient", "last"))
    split = _core.split_resources(bundle(first, bad, last), max_resource_bytes=900)
    assert split.rejected() == [(1, code)]
    assert [row[1] for row in split.rows()] == ["first", "last"]
    assert split.entries.tolist() == [0, 2]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"resource":{"resourceType":"Patient","resourceType":"Patient"}}',
        b'{"resource":{"resourceType":"Patient","id":"a","id":"a"}}',
        b'{"resource":{"resourceType":"Flag","subject":{"reference":"Patient/1"},"subject":{"reference":"Patient/2"}}}',
        b'{"resource":{"resourceType":"Flag","subject":{"reference":"Patient/1","reference":"Patient/2"}}}',
        b'{"resource":{"resourceType":"Appointment","participant":[{"actor":{},"actor":{}}]}}',
        b'{"resource":{"resourceType":"Flag"},"resource":{"resourceType":"Flag"}}',
        b'{"fullUrl":"urn:a","fullUrl":"urn:b","resource":{"resourceType":"Flag"}}',
    ],
)
def test_members_that_decide_something_are_there_once(bad: bytes) -> None:
    data = b'{"resourceType":"Bundle","type":"batch","entry":[' + bad + b',{"resource":{"resourceType":"Flag"}}]}'
    split = _core.split_resources(data)
    assert split.rejected() == [(0, "fhir.duplicate_key")]
    assert len(split) == 1


def test_other_repeated_members_are_kept_as_received() -> None:
    data = b'{"resourceType":"Flag","note":1,"note":2}'
    assert _core.split_resources(data).content(0) == data


def test_the_same_resource_twice_is_no_collision_and_versions_are_none_either() -> None:
    twice = _core.split_resources(bundle(entry(resource()), entry(resource())))
    assert (len(twice), twice.rejected()) == (2, [])

    def version(number: str) -> Json:
        return entry(resource(meta={"versionId": number}), fullUrl="http://h/Observation/a")

    versions = _core.split_resources(bundle(version("1"), version("2"), kind="collection"))
    assert versions.rejected() == []
    same = _core.split_resources(bundle(version("1"), version("1"), kind="collection"))
    assert same.rejected() == [(1, "fhir.duplicate_full_url")]
    history = bundle(entry(resource(), fullUrl="u"), entry(resource(status="final"), fullUrl="u"), kind="history")
    assert _core.split_resources(history).rejected() == []


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", "fhir.invalid_json", 0),
        (b"\xef\xbb\xbf{}", "fhir.invalid_json", 0),
        (b'{"resourceType":"Patient"', "fhir.invalid_json", 25),
        (b'{"resourceType":"Patient"} x', "fhir.invalid_json", 27),
        (b'{"resourceType":"Patient","a":01}', "fhir.invalid_json", 31),
        (b'{"resourceType":"Patient",}', "fhir.invalid_json", 26),
        (b'{"resourceType":"Patient","a":"\n"}', "fhir.invalid_json", 31),
        (b'{"resourceType":"Pat\xffient"}', "fhir.invalid_utf8", 20),
        (b"[]", "fhir.not_fhir", 0),
        (b" 12 ", "fhir.not_fhir", 1),
        (b"{}", "fhir.not_fhir", 0),
        (b'{"resourceType":"Pation"}', "fhir.unknown_type", 16),
        (b'{"resourceType":"Patient","id":"/"}', "fhir.invalid_id", 31),
        (b'{"resourceType":"Bundle","entry":[]}', "fhir.invalid_bundle", 0),
        (b'{"resourceType":"Bundle","type":"pile"}', "fhir.invalid_bundle", 32),
        (b'{"resourceType":"Bundle","type":"batch","entry":{}}', "fhir.invalid_bundle", 48),
        (b'{"resourceType":"Bundle","resourceType":"Bundle","type":"batch"}', "fhir.duplicate_key", 26),
        (b'{"resourceType":"Bundle","type":"batch","type":"batch"}', "fhir.duplicate_key", 41),
        (b'{"resourceType":"Bundle","type":"batch","x":' + b"[" * 64 + b"]" * 64 + b"}", "fhir.too_deep", 107),
    ],
)  # fmt: skip
def test_a_bad_document_is_refused_with_code_and_offset(data: bytes, code: str, offset: int) -> None:
    error = refused(data)
    assert (error.code, dict(error.details)) == (code, {"offset": offset})


def test_the_limits_are_exact() -> None:
    data = json.dumps(resource(text="x" * 100)).encode()
    assert len(_core.split_resources(data, max_resource_bytes=len(data))) == 1
    error = refused(data, max_resource_bytes=len(data) - 1)
    assert error.code == "fhir.resource_too_large"
    assert dict(error.details) == {"bytes": len(data), "limit_bytes": len(data) - 1}
    assert len(_core.split_resources(json.dumps(resource(value=nested(63))).encode())) == 1
    assert refused(json.dumps(resource(value=nested(64))).encode()).code == "fhir.too_deep"


def test_endless_nesting_is_refused_not_survived_by_luck() -> None:
    deep = b'{"resourceType":"Patient","a":' + b"[" * 5_000_000 + b"]" * 5_000_000 + b"}"
    assert refused(deep).code == "fhir.too_deep"
    assert refused(b"[" * 5_000_000).code == "fhir.invalid_json"
    assert refused(b'{"a":' * 2_000_000).code == "fhir.invalid_json"


def test_sixteen_mebibytes_are_the_default_limit() -> None:
    fits = b'{"resourceType":"Binary","data":"' + b"A" * (16 * 2**20 - 35) + b'"}'
    assert len(fits) == 16 * 2**20
    assert len(_core.split_resources(fits)) == 1
    assert refused(fits.replace(b"A", b"AA", 1)).code == "fhir.resource_too_large"


def test_a_bundle_of_50_000_entries_works() -> None:
    one = '{"fullUrl":"urn:uuid:%d","resource":{"resourceType":"Flag","id":"f%d","subject":{"reference":"Patient/1"}}}'
    listed = ",".join(one % (number, number) for number in range(50_000))
    split = _core.split_resources(f'{{"resourceType":"Bundle","type":"collection","entry":[{listed}]}}'.encode())
    assert len(split) == 50_000
    assert split.rejected() == []
    assert split.rows()[49_999] == ("Flag", "f49999", "urn:uuid:49999", "Patient/1", None)


def test_ndjson_lines_stand_alone() -> None:
    lines = [
        b'{"resourceType":"Patient","id":"a"}',
        b"",
        b'{"resourceType":"Patient"',
        b" \t\r",
        b'{"resourceType":"Pa\xfftient"}',
        b'{"resourceType":"Patient"} {}',
        b'{"resourceType":"Nothing"}',
        b'{"resourceType":"Flag","subject":{"reference":"urn:uuid:1"}}\r',
        b'{"resourceType":"Bundle","type":"batch"}',
        b'{"resourceType":"Patient","id":"a","x":"' + b"x" * 500 + b'"}',
    ]
    data = b"\n".join(lines)
    for block in (data, data + b"\n"):
        split = _core.split_ndjson(block, max_resource_bytes=500)
        assert split.kind == "ndjson"
        assert [row[0] for row in split.rows()] == ["Patient", "Flag", "Bundle"]
        assert [split.content(i) for i in range(3)] == [lines[0], lines[7].strip(), lines[8]]
        assert split.entries.tolist() == [0, 7, 8]
        assert split.rejected() == [
            (2, "fhir.invalid_json"),
            (4, "fhir.invalid_utf8"),
            (5, "fhir.invalid_json"),
            (6, "fhir.unknown_type"),
            (9, "fhir.resource_too_large"),
        ]


def test_repr_and_errors_show_no_content() -> None:
    split = _core.split_resources(bundle(entry(resource(identifier="secret-marker")), {}))
    assert repr(split) == "<Resources Bundle:transaction held=1 rejected=1>"
    error = refused(b'{"resourceType":"secret-marker"}')
    assert "secret-marker" not in str(error) + repr(error)
