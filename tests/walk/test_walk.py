"""The walk: generated patients from files to a proof checked offline, and what must be refused on the way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from ehrfast import Node, verify
from ehrfast.errors import ConflictError, DeniedError, InvalidInputError, NotFoundError, VerificationError


@pytest.fixture
def node(tmp_path: Path, patients: Path):
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as made:
        report = made.import_fhir(patients)
        assert report.rejected == ()
        yield made


def bundle_resources(folder: Path) -> dict[str, dict[str, object]]:
    found = {}
    for file in sorted(folder.iterdir()):
        for entry in json.loads(file.read_bytes())["entry"]:
            resource = entry["resource"]
            found[f"{resource['resourceType']}/{resource['id']}"] = resource
    return found


def test_every_resource_comes_back_as_it_was_received(node: Node, patients: Path) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    expected = bundle_resources(patients)
    with node.session(doctor, purpose="TREAT") as session:
        assert {row.reference for row in session.list()} == set(expected)
        raw = b"".join(file.read_bytes() for file in sorted(patients.iterdir()))
        for reference, resource in expected.items():
            content = session.read(reference).content
            assert json.loads(content) == resource
            assert content in raw


def test_evidence_is_checked_without_a_node(node: Node, tmp_path: Path) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        entry = session.list("Observation")[0]
        record = session.read(entry.reference)
        evidence = session.prove(entry.reference, version=record.version, disclose=True)
        closed = session.prove(entry.reference)
    evidence.save(tmp_path / "bp.proof")
    key = node.verifier_key
    checked = verify(tmp_path / "bp.proof", key=key, content=record.content)
    assert checked.chain_id == node.chain.chain_id
    assert checked.content_matches
    assert checked.custody == "custodial"
    assert checked.index == entry.index
    altered = bytearray(record.content)
    altered[len(altered) // 2] ^= 1
    with pytest.raises(VerificationError):
        verify(evidence, key=key, content=bytes(altered))
    with pytest.raises(VerificationError) as undisclosed:
        verify(closed, key=key, content=record.content)
    assert undisclosed.value.code == "evidence.not_disclosed"


def test_an_altered_evidence_text_is_refused_at_every_tenth_byte(node: Node) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        reference = session.list("Observation")[0].reference
        content = session.read(reference).content
        text = session.prove(reference, disclose=True).text
    verify(text, key=node.verifier_key, content=content)
    for position in range(0, len(text), 10):
        broken = bytearray(text)
        broken[position] ^= 1
        with pytest.raises((VerificationError, InvalidInputError)):
            verify(bytes(broken), key=node.verifier_key, content=content)


def test_an_update_makes_the_next_version_and_keeps_the_first(node: Node) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        reference = session.list("Observation")[0].reference
        record = session.read(reference)
        session.update({**record.json(), "status": "amended"}).result(timeout=5)
        assert session.read(reference).json()["status"] == "amended"
        assert session.read(reference).version == 2
        assert session.read(reference, version=1).content == record.content
        assert [row.version for row in session.history(reference)] == [2, 1]
        with pytest.raises(ConflictError):
            session.update(session.read(reference).content)


def test_updates_can_be_awaited(node: Node) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")

    async def write() -> int:
        with node.session(doctor, purpose="TREAT") as session:
            row = session.list("Condition")[0]
            receipt = await session.update({**session.read(row.reference).json(), "language": "en"})
            return receipt.height

    assert asyncio.run(write()) == node.chain.published.height


def test_who_may_not_read_is_refused_and_hidden_equals_absent(node: Node) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        mine, other = [row.reference for row in session.list("Patient")][:2]
        theirs = next(row.reference for row in session.list("Observation") if row.patient == other)
    patient = node.identities.enrol("patient-1", role="patient", patient=mine)
    with node.session(patient, purpose="PATRQT") as session:
        assert session.read(mine).content
        assert {row.patient for row in session.list()} == {mine}
        for hidden in (other, theirs, "Observation/never-there"):
            with pytest.raises(NotFoundError) as refused:
                session.read(hidden)
            assert refused.value.code == "record.unknown"
            assert refused.value.details == {}
    for identity in (node.identities.gateway, node.identities.enrol("r", role="researcher")):
        with node.session(identity, purpose="TREAT") as session:
            with pytest.raises(DeniedError):
                session.read(mine)
            with pytest.raises(DeniedError):
                session.list()
    with pytest.raises(InvalidInputError):
        node.session(doctor, purpose="CURIOSITY")


def test_every_read_is_in_the_patients_own_audit_log_before_it_answers(node: Node) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    with node.session(doctor, purpose="TREAT") as session:
        mine = session.list("Patient")[0].reference
        height = node.chain.published.height
        session.read(mine)
        assert node.chain.published.height > height
    patient = node.identities.enrol("patient-1", role="patient", patient=mine)
    with node.session(patient, purpose="PATRQT") as session:
        events = [session.read(row.reference).json() for row in session.list("AuditEvent")]
    seen = {(event["agent"][0]["who"]["identifier"]["value"], event["subtype"][0]["code"]) for event in events}
    assert (str(doctor), "read") in seen
    with node.session(doctor, purpose="TREAT") as session:
        assert session.list("AuditEvent") == []


def test_the_same_files_again_make_no_second_version(node: Node, patients: Path) -> None:
    size = node.chain.published.tree_size
    report = node.import_fhir(patients)
    assert report.unchanged == report.resources
    assert report.transactions == 0
    assert node.chain.published.tree_size == size


def test_a_node_reopens_where_it_was(tmp_path: Path, patients: Path) -> None:
    folder = tmp_path / "again.ehr"
    with Node.create(folder, organisation="Clinic North") as node:
        node.import_fhir(patients)
        before = node.status()
    with Node.open(folder) as node:
        after = node.status()
        assert (after.log_root, after.state_root, after.records) == (before.log_root, before.state_root, before.records)
        assert node.fsck().ok


def test_a_second_process_is_named(tmp_path: Path) -> None:
    with Node.create(tmp_path / "one.ehr", organisation="Clinic North"):
        with pytest.raises(ConflictError) as locked:
            Node.open(tmp_path / "one.ehr")
        assert locked.value.code == "node.locked"


def test_a_wrong_root_key_opens_nothing(tmp_path: Path) -> None:
    with Node.create(tmp_path / "one.ehr", organisation="Clinic North"):
        pass
    key = tmp_path / "one.ehr" / "root.key"
    key.write_text("00" * 32)
    with pytest.raises(DeniedError) as refused:
        Node.open(tmp_path / "one.ehr")
    assert refused.value.code == "keys.wrong_root_key"
    key.chmod(0o644)
    with pytest.raises(DeniedError) as exposed:
        Node.open(tmp_path / "one.ehr")
    assert exposed.value.code == "root_key.exposed"
