"""Import of what is broken, foreign, odd or very large: each with its own code, neighbours unharmed, nothing lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ehrfast import Node
from ehrfast._core import split_ndjson
from ehrfast.access.import_fhir import ImportReport
from ehrfast.access.session import Session
from ehrfast.errors import ConflictError, EhrfastError, InvalidInputError, NotFoundError

MIB = 1024 * 1024
Json = dict[str, Any]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as made:
        yield made


@pytest.fixture
def session(node: Node) -> Iterator[Session]:
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def patient(identifier: str, **members: Any) -> Json:
    return {"resourceType": "Patient", "id": identifier, **members}


def observation(identifier: str, of: str, **members: Any) -> Json:
    return {"resourceType": "Observation", "id": identifier, "subject": {"reference": of}, **members}


def raw(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def bundle(*resources: Json, kind: str = "transaction", urls: list[str] | None = None) -> bytes:
    named = urls or [f"urn:uuid:{number}" for number in range(len(resources))]
    entries = [{"fullUrl": url, "resource": each} for url, each in zip(named, resources, strict=True)]
    return raw({"resourceType": "Bundle", "type": kind, "entry": entries})


def codes(report: ImportReport) -> list[tuple[str, int | None, str]]:
    return [(Path(each.file).name, each.entry, each.code) for each in report.rejected]


def sound_afterwards(node: Node, tmp_path: Path) -> None:
    """fsck finds nothing now nor after reopening, and the node stands where it stood."""
    before = node.status()
    assert node.fsck().ok
    node.close()
    with Node.open(tmp_path / "clinic.ehr") as again:
        assert again.fsck().ok
        after = again.status()
        assert (after.log_root, after.state_root, after.records) == (before.log_root, before.state_root, before.records)


GOOD = raw(patient("good"))
BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "truncated gzip": ("bad.json.gz", gzip.compress(GOOD * 100)[:-20], "import.truncated_gzip"),
    "gzip with one wrong bit": ("bad.json.gz", gzip.compress(GOOD)[:-8] + bytes(8), "import.damaged_gzip"),
    "not gzip": ("bad.json.gz", GOOD, "import.not_gzip"),
    "empty gzip": ("bad.ndjson.gz", b"", "import.empty_file"),
    "empty": ("bad.json", b"", "import.empty_file"),
    "white space only": ("bad.json", b" \n", "fhir.invalid_json"),
    "invalid JSON": ("bad.json", b'{"resourceType":"Patient",', "fhir.invalid_json"),
    "two documents": ("bad.json", GOOD + GOOD, "fhir.invalid_json"),
    "no resourceType": ("bad.json", b'{"hello":"world"}', "fhir.not_fhir"),
    "a number": ("bad.json", b"42", "fhir.not_fhir"),
    "unknown type": ("bad.json", b'{"resourceType":"Spaceship","id":"x"}', "fhir.unknown_type"),
    "invalid id": ("bad.json", b'{"resourceType":"Patient","id":"a/b"}', "fhir.invalid_id"),
    "one key twice": ("bad.json", b'{"resourceType":"Patient","id":"a","id":"b"}', "fhir.duplicate_key"),
    "invalid UTF-8": ("bad.json", GOOD.replace(b"good", b"g\xff"), "fhir.invalid_utf8"),
    "half a surrogate pair in UTF-8": ("bad.json", GOOD.replace(b"good", b"\xed\xa0\x80"), "fhir.invalid_utf8"),
    "deep nesting": ("bad.json", GOOD[:-1] + b',"n":' + b"[" * 64 + b"]" * 64 + b"}", "fhir.too_deep"),
    "very deep nesting": ("bad.json", b"[" * 1_000_000, "fhir.invalid_json"),
    "byte order mark": ("bad.json", b"\xef\xbb\xbf" + GOOD, "import.byte_order_mark"),
    "unknown kind of Bundle": ("bad.json", bundle(patient("a"), kind="parcel"), "fhir.invalid_bundle"),
    "entry is no array": ("bad.json", b'{"resourceType":"Bundle","type":"batch","entry":7}', "fhir.invalid_bundle"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_has_its_code_and_its_neighbours_are_taken(
    case: str, node: Node, session: Session, source: Path, tmp_path: Path
) -> None:
    name, content, code = BAD_FILES[case]
    (source / name).write_bytes(content)
    (source / "a.json").write_bytes(raw(patient("before")))
    (source / "z.json").write_bytes(raw(patient("after")))
    report = node.import_fhir(source)
    assert codes(report) == [(name, None, code)]
    assert report.rejected[0].message != code
    assert report.resources == 2
    assert {row.reference for row in session.list()} == {"Patient/before", "Patient/after"}
    sound_afterwards(node, tmp_path)


BAD_ENTRIES: dict[str, tuple[list[object], str]] = {
    "duplicate fullUrl": ([{"fullUrl": "urn:uuid:0", "resource": patient("b")}], "fhir.duplicate_full_url"),
    "duplicate id": ([{"fullUrl": "urn:uuid:1", "resource": patient("a", active=True)}], "fhir.duplicate_id"),
    "no resource": ([{"fullUrl": "urn:uuid:1"}], "fhir.entry_without_resource"),
    "unknown type": ([{"resource": {"resourceType": "Spaceship"}}], "fhir.unknown_type"),
    "no resourceType": ([{"resource": {"id": "a"}}], "fhir.not_fhir"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_a_bad_entry_has_its_code_and_number_and_the_others_are_taken(
    case: str, node: Node, session: Session, source: Path
) -> None:
    broken, code = BAD_ENTRIES[case]
    first, last = {"fullUrl": "urn:uuid:0", "resource": patient("a")}, {"resource": patient("c")}
    content = raw({"resourceType": "Bundle", "type": "transaction", "entry": [first, *broken, last]})
    (source / "bundle.json").write_bytes(content)
    report = node.import_fhir(source)
    assert codes(report) == [("bundle.json", 1, code)]
    assert report.resources == 2
    assert session.read("Patient/a").content == raw(patient("a"))
    assert session.read("Patient/c").content == raw(patient("c"))


def test_a_bad_line_has_its_code_and_its_number_in_the_whole_file(node: Node, source: Path) -> None:
    filler = "x" * 1000
    lines = [raw(patient(f"p{number}", language=filler)) for number in range(6000)]
    lines[1], lines[5500] = b'{"resourceType":', b'{"resourceType":"Patient","id":"\xff"}'
    content = b"\n".join(lines)
    assert len(content) > 2 * 2 * MIB
    (source / "all.ndjson").write_bytes(content)
    (source / "all.ndjson.gz").write_bytes(gzip.compress(content, 1))
    report = node.import_fhir(source / "all.ndjson")
    assert codes(report) == [("all.ndjson", 1, "fhir.invalid_json"), ("all.ndjson", 5500, "fhir.invalid_utf8")]
    assert report.resources == 5998
    report = node.import_fhir(source / "all.ndjson.gz")
    assert [each.entry for each in report.rejected] == [1, 5500]
    assert report.unchanged == 5998
    (source / "cut.ndjson.gz").write_bytes(gzip.compress(content + b"\n" + raw(patient("last")), 1)[:-9])
    report = node.import_fhir(source / "cut.ndjson.gz")
    assert codes(report)[-1] == ("cut.ndjson.gz", None, "import.truncated_gzip")
    assert node.fsck().ok


def test_a_line_without_end_is_refused_by_itself(node: Node, session: Session, source: Path) -> None:
    endless = b'{"resourceType":"Patient","x":"' + b"a" * (40 * MIB)
    lines = [raw(patient("before")), endless, raw(patient("after")), b"{}", endless]
    with gzip.open(source / "bomb.ndjson.gz", "wb", 1) as target:
        target.write(b"\n".join(lines))
    report = node.import_fhir(source)
    assert codes(report) == [
        ("bomb.ndjson.gz", 1, "fhir.resource_too_large"),
        ("bomb.ndjson.gz", 3, "fhir.not_fhir"),
        ("bomb.ndjson.gz", 4, "fhir.resource_too_large"),
    ]
    assert {row.reference for row in session.list()} == {"Patient/before", "Patient/after"}


def test_a_file_the_system_cannot_read_has_its_code(node: Node, source: Path) -> None:
    memory = Path("/proc/self/mem")
    if not memory.is_file():
        pytest.skip("no file here that cannot be read at its beginning")
    (source / "bad.json").symlink_to(memory)
    (source / "good.json").write_bytes(GOOD)
    report = node.import_fhir(source)
    assert codes(report) == [("bad.json", None, "import.unreadable")]
    assert report.resources == 1


def test_a_folder_without_fhir_files_is_said_and_the_rest_goes_on(node: Node, source: Path, tmp_path: Path) -> None:
    (source / "notes.txt").write_text("nothing for us")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.json").write_bytes(GOOD)
    report = node.import_fhir(source, other)
    assert codes(report) == [("in", None, "import.no_fhir_files")]
    assert report.resources == 1


def test_a_path_that_is_not_there_is_refused_before_anything_is_read(node: Node, source: Path) -> None:
    (source / "a.json").write_bytes(GOOD)
    with pytest.raises(NotFoundError) as refused:
        node.import_fhir(source, source / "nowhere")
    assert refused.value.code == "import.no_such_file"
    assert refused.value.details == {"position": 1}
    assert node.status().records == 0


def test_ten_mebibytes_come_back_and_seventeen_are_refused_by_name(
    node: Node, session: Session, source: Path, tmp_path: Path
) -> None:
    data = "QUJD" * (10 * MIB // 4)
    large = raw({"resourceType": "Binary", "id": "large", "contentType": "text/plain", "data": data})
    largest = raw({"resourceType": "Binary", "id": "largest", "data": ""})
    largest = largest[:-2] + b"A" * (16 * MIB - len(largest)) + largest[-2:]
    over = largest[:-2] + b"A" + largest[-2:]
    (source / "a.json").write_bytes(large)
    (source / "b.json").write_bytes(over)
    (source / "c.json").write_bytes(largest)
    both = over + b'},{"resource":' + GOOD
    (source / "d.json").write_bytes(bundle(patient("p")).replace(raw(patient("p")), both))
    report = node.import_fhir(source)
    assert codes(report) == [("b.json", None, "fhir.resource_too_large"), ("d.json", 0, "fhir.resource_too_large")]
    assert "16 MiB" in report.rejected[0].message
    assert session.read("Binary/large").content == large
    assert session.read("Binary/largest").content == largest
    assert session.read("Patient/good").content == GOOD
    session.update(large.replace(b"text/plain", b"text/x-mib")).result(timeout=60)
    assert session.read("Binary/large").version == 2
    sound_afterwards(node, tmp_path)


@pytest.mark.parametrize("patients", [20, 2_000])
def test_a_bundle_of_fifty_thousand_entries_is_split_and_said_so(patients: int, node: Node, source: Path) -> None:
    resources = [patient(f"p{number}") for number in range(patients)]
    others = [observation(f"o{number}", f"urn:uuid:{number % patients}") for number in range(50_000 - patients)]
    (source / "large.json").write_bytes(bundle(*resources, *others))
    (source / "small.json").write_bytes(bundle(patient("small")))
    report = node.import_fhir(source)
    assert codes(report) == []
    assert report.resources == 50_001
    assert report.split == 1
    assert report.transactions > 50_000 // 700 + 1
    assert node.status().records == 50_001
    assert node.import_fhir(source).unchanged == 50_001
    assert node.fsck().ok


@pytest.mark.parametrize("kind", ["searchset", "collection", "batch", "transaction", "document", "message", "history"])
def test_every_kind_of_bundle_is_taken(kind: str, node: Node, session: Session, source: Path) -> None:
    (source / "a.json").write_bytes(bundle(patient("p"), observation("o", "Patient/p"), kind=kind))
    report = node.import_fhir(source)
    assert (report.resources, report.split, codes(report)) == (2, 0, [])
    assert session.read("Observation/o").content == raw(observation("o", "Patient/p"))
    assert {row.patient for row in session.list()} == {"Patient/p"}


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.ndjson", "a.ndjson.gz", "a.jsonl", "b/c/a.json", "a.fhir"])
def test_single_resources_and_lines_are_taken_packed_or_not(
    name: str, node: Node, session: Session, source: Path
) -> None:
    spaced = b'{ "resourceType" : "Patient",\t"id":"p", "decimal":1.50 , "text":"\xc3\xa4\\u00e4" }'
    file = source / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(b"\n" + spaced + b"\n") if name.endswith(".gz") else b"\n" + spaced + b"\n")
    report = node.import_fhir(file)
    assert (report.resources, codes(report)) == (1, [])
    assert session.read("Patient/p").content == spaced


def test_a_resource_without_id_gets_one_beside_its_bytes_and_only_one(
    node: Node, session: Session, source: Path, tmp_path: Path
) -> None:
    content = b'{"resourceType":"Observation","status":"final"}'
    (source / "a.json").write_bytes(content)
    (source / "b.json").write_bytes(bundle({"resourceType": "Patient", "active": True}, urls=["urn:uuid:x"]))
    assert node.import_fhir(source).resources == 2
    reference = session.list("Observation")[0].reference
    assert len(reference.partition("/")[2]) == 32
    assert session.read(reference).content == content
    again = node.import_fhir(source)
    assert (again.unchanged, again.transactions) == (2, 0)
    assert [row.version for row in session.history(reference)] == [1]
    sound_afterwards(node, tmp_path)
    with Node.open(tmp_path / "clinic.ehr") as reopened:
        assert reopened.import_fhir(source).unchanged == 2


def own_records(node: Node, reference: str) -> set[str]:
    """What the patient of that reference sees of themselves, audit events left out; each row names them so."""
    identity = node.identities.enrol("patient", role="patient", patient=reference)
    with node.session(identity, purpose="PATRQT") as opened:
        rows = [row for row in opened.list() if row.record_class != "audit"]
    assert {row.patient for row in rows} == {reference}
    return {row.reference for row in rows}


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("order", [("patient", "observation"), ("observation", "patient")])
def test_a_patient_is_found_across_files_whoever_comes_first(
    order: tuple[str, str], reopened: bool, node: Node, source: Path, tmp_path: Path
) -> None:
    content = {
        "patient": bundle(patient("p"), urls=["urn:uuid:4242"]),
        "observation": bundle(observation("o", "urn:uuid:4242"), observation("x", "urn:uuid:9")),
    }
    for number, name in enumerate(order):
        (source / f"{number}.json").write_bytes(content[name])
    if reopened:
        assert node.import_fhir(source / "0.json").rejected == ()
        node.close()
        node = Node.open(tmp_path / "clinic.ehr")
        assert node.import_fhir(source / "1.json").rejected == ()
    else:
        assert node.import_fhir(source).rejected == ()
    assert own_records(node, "Patient/p") == {"Patient/p", "Observation/o"}
    node.close()
    with Node.open(tmp_path / "clinic.ehr") as again:
        assert own_records(again, "Patient/p") == {"Patient/p", "Observation/o"}
        assert again.fsck().ok


def test_many_patients_under_way_are_found_by_the_files_that_follow(node: Node, source: Path) -> None:
    for number in range(40):
        (source / f"{number:02}-a.json").write_bytes(bundle(patient(f"p{number}"), urls=[f"urn:uuid:{number}-p"]))
        content = bundle(observation(f"o{number}", f"urn:uuid:{number}-p"), urls=[f"urn:uuid:{number}-o"])
        (source / f"{number:02}-b.json").write_bytes(content)
    assert node.import_fhir(source).resources == 80
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as opened:
        patients = {row.reference: row.patient for row in opened.list()}
    assert {reference: name for reference, name in patients.items() if name != reference} == {
        f"Observation/o{number}": f"Patient/p{number}" for number in range(40)
    }


BAD_WRITES: dict[str, tuple[Callable[[Session], object], type[EhrfastError], str]] = {
    "create what exists": (lambda s: s.create(patient("good")), ConflictError, "record.exists"),
    "update what does not": (lambda s: s.update(patient("other")), NotFoundError, "record.unknown"),
    "update without a change": (lambda s: s.update(GOOD), ConflictError, "record.unchanged"),
    "a Bundle": (lambda s: s.create(bundle(patient("b"))), InvalidInputError, "fhir.not_one_resource"),
    "not JSON": (lambda s: s.create(b"{"), InvalidInputError, "fhir.invalid_json"),
    "unknown type": (lambda s: s.create({"resourceType": "Spaceship"}), InvalidInputError, "fhir.unknown_type"),
    "no type": (lambda s: s.create({"id": "a"}), InvalidInputError, "fhir.not_fhir"),
    "half a surrogate": (lambda s: s.create(patient("a", x="\ud800")), InvalidInputError, "fhir.unsupported_value"),
    "not a number": (lambda s: s.create(patient("a", x=float("nan"))), InvalidInputError, "fhir.unsupported_value"),
    "a set": (lambda s: s.create(patient("a", x={1})), InvalidInputError, "fhir.unsupported_value"),
    "a key that is no text": (lambda s: s.create(patient("a", x={1: 2})), InvalidInputError, "fhir.unsupported_value"),
    "too large": (lambda s: s.create(patient("a", x="x" * 17 * MIB)), InvalidInputError, "fhir.resource_too_large"),
}


@pytest.mark.parametrize("case", BAD_WRITES)
def test_a_bad_write_has_its_code_and_changes_nothing(
    case: str, node: Node, session: Session, source: Path
) -> None:
    (source / "a.json").write_bytes(GOOD)
    node.import_fhir(source)
    write, kind, code = BAD_WRITES[case]
    before = node.chain.published.state_root
    with pytest.raises(kind) as refused:
        write(session)
    assert refused.value.code == code
    assert node.chain.published.state_root == before
    session.update(patient("good", active=True)).result(timeout=60)


def test_a_number_no_decimal_holds_is_kept_and_only_not_parsed(node: Node, session: Session, source: Path) -> None:
    content = raw(patient("p"))[:-1] + b',"x":1e99999999999999999999}'
    (source / "a.json").write_bytes(content)
    assert node.import_fhir(source).resources == 1
    record = session.read("Patient/p")
    assert record.content == content
    with pytest.raises(InvalidInputError) as refused:
        record.json()
    assert refused.value.code == "fhir.invalid_json"


def test_blocks_of_lines_are_cut_where_lines_end(source: Path) -> None:
    """The reader's blocks equal the file read at once, wherever the block's end falls."""
    from ehrfast.access import import_fhir

    lines = [raw(patient(f"p{number}", x="y" * (number % 7))) for number in range(50)]
    for content in (b"\n".join(lines), b"\n".join(lines) + b"\n", b"\n\n".join(lines), b"", b"\n"):
        (source / "a.ndjson").write_bytes(content)
        expected = [(number, line) for number, line in enumerate(content.split(b"\n")) if line]
        for size in (1, 2, 3, 64, len(content) + 1):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(import_fhir, "NDJSON_BLOCK_BYTES", size)
                found = [
                    (first + int(documents.entries[number]), documents.content(number))
                    for first, documents in import_fhir.read_documents(source / "a.ndjson")
                    if documents is not None
                    for number in range(len(documents))
                ]
            assert found == expected
        assert len(split_ndjson(content)) == len(expected)
