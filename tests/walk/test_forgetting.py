"""Forgetting: after an erasure the bytes of every file, under every key the node still holds, open nothing of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ehrfast import Node, verify
from ehrfast._core import (
    ClassKey,
    Frame,
    KeyStore,
    SegmentLog,
    StateDb,
    cbor_decode,
    open_record,
    state_path,
    wrap_kids,
)
from ehrfast.access.prune import PrunePolicy
from ehrfast.access.session import Session
from ehrfast.chain.state_key import STATE_KEY_KIND
from ehrfast.errors import ConflictError, CorruptionError, DeniedError, EhrfastError, InvalidInputError, NotFoundError
from ehrfast.keys.root_key import read_root_key
from ehrfast.keys.subjects import SUBJECT_KIND
from ehrfast.model.genesis import open_genesis
from ehrfast.model.identity import Identity
from ehrfast.model.record import ERASED
from ehrfast.node import Settings
from ehrfast.records.archive import read_archives
from ehrfast.records.classes import CLASSES

GONE, STAYS = "gone-7f3a", "stays-91bc"


def patient(name: str) -> dict[str, object]:
    return {"resourceType": "Patient", "id": f"patient-{name}", "active": True, "language": f"lang-{name}"}


def observation(name: str, number: int, status: str = "final") -> dict[str, object]:
    return {
        "resourceType": "Observation",
        "id": f"obs-{name}-{number}",
        "status": status,
        "code": {"text": f"finding-{name}-{number}"},
        "subject": {"reference": f"Patient/patient-{name}"},
    }


def entry(resource: dict[str, object]) -> dict[str, object]:
    request = {"method": "PUT", "url": "x"}
    return {"fullUrl": f"http://clinic/{resource['id']}", "resource": resource, "request": request}


def bundle(*resources: dict[str, object]) -> bytes:
    entries = [entry(resource) for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()


@dataclass(slots=True)
class Clinic:
    """A node with two patients in one Bundle, each with observations, and reads of both in the audit."""

    node: Node
    doctor: Identity
    auditor: Identity

    def session(self, identity: Identity | None = None) -> Session:
        return self.node.session(identity or self.doctor, purpose="TREAT")

    def read(self, reference: str) -> bytes:
        with self.session() as session:
            return session.read(reference).content

    def read_code(self, reference: str) -> str:
        with pytest.raises(EhrfastError) as caught:
            self.read(reference)
        return caught.value.code

    def listed(self) -> set[str]:
        with self.session() as session:
            return {each.reference for each in session.list()}


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    source = tmp_path / "both.json"
    names = (GONE, STAYS)
    source.write_bytes(bundle(*(p for n in names for p in (patient(n), *(observation(n, i) for i in range(3))))))
    alone = tmp_path / "alone.json"
    alone.write_bytes(bundle(observation(GONE, 7), observation(GONE, 8)))
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        node.import_fhir(source)
        node.import_fhir(alone)
        doctor = node.identities.enrol("physician-1", role="physician")
        auditor = node.identities.enrol("auditor-1", role="auditor")
        made = Clinic(node, doctor, auditor)
        with made.session() as session:
            for name in names:
                session.update(observation(name, 0, "amended")).result(timeout=60)
                session.read(f"Observation/obs-{name}-0")
                session.read(f"Observation/obs-{name}-1")
        yield made


class Everything:
    """All that opens for whoever has the root key and every byte of the medium, by brute force: files as they lie
    there, removed ones included, under every key that the key store holds now and every key that derives from one."""

    def __init__(self, folder: Path, removed: Path) -> None:
        settings = Settings.load(folder)
        self.keys = KeyStore.open(str(folder / "keys"), read_root_key(settings.root_key, folder), read_only=True)
        self.raw = [path.read_bytes() for root in (folder, removed) for path in root.rglob("*") if path.is_file()]
        self.held = {kind: {name: self.keys.get(kind, name) or b"" for name in self.keys.ids(kind)} for kind in KINDS}
        assert sum(map(len, self.held.values())) == len(self.keys), "a kind of key that this test does not know"
        self.opened: list[bytes] = [part for of in self.held.values() for pair in of.items() for part in pair]
        self.sealed: list[tuple[bytes, bytes]] = []
        self.places: set[tuple[bytes, int, str]] = set()
        chain_id = open_genesis(next((folder / "chains").iterdir()).joinpath("genesis").read_bytes()).chain_id
        for root in (folder, removed):
            for chain in root.glob("chains/*"):
                self._log(chain / "log", chain_id)
                self._state(chain / "state")
        self._records(chain_id)
        self.keys.close()

    def _log(self, folder: Path, chain_id: str) -> None:
        for _, _, frame in SegmentLog.scan(str(folder), chain_id, self.keys):
            if not isinstance(frame, Frame):
                continue
            self.opened += [*frame.leaves, *frame.receipts, *(each for each in frame.transactions if each is not None)]
            self.opened += [stored for _, stored in frame.write_set.items() if stored is not None]
            for transaction in filter(None, frame.decoded_transactions()):
                rows = transaction.args.get({"put": 1, "append": 2}.get(transaction.method, 0), ())
                self.places |= {(row[0], row[1], row[3]) for row in rows}
            for pack in map(frame.stored_pack, frame.pack_roots):
                for position in range(len(pack)):
                    item, wraps = pack.item(position), pack.wraps(position)
                    self.opened += [part for part in (item, wraps) if part is not None]
                    self.sealed.append((item or b"", wraps or b""))
                    self.places |= {(kid[0], position, kid[2]) for kid in (wrap_kids(wraps) if wraps else ())}

    def _state(self, folder: Path) -> None:
        for key in self.held[STATE_KEY_KIND].values() if folder.exists() else ():
            try:
                state = StateDb.open(str(folder), key)
            except CorruptionError:  # another key's
                continue
            self.opened += [stored for path in self.paths() if (stored := state.get(path)) is not None]
            state.close()

    def paths(self) -> list[bytes]:
        return [state_path("records", (record, version)) for record, version, _ in self.places]

    def _records(self, origin: str) -> None:
        roots = {name: cbor_decode(value)[0] for name, value in self.held[SUBJECT_KIND].items()}
        everybodys = {wraps for _, wraps in self.sealed if wraps}
        for item, own in self.sealed:
            for wraps in {own} if own else everybodys:
                for subject, custodian, class_, epoch in wrap_kids(wraps) if item else ():
                    if subject in roots:
                        key = ClassKey.derive(roots[subject], subject, custodian, class_, epoch)
                        self._open(item, wraps, key, origin)

    def _open(self, item: bytes, wraps: bytes, key: ClassKey, origin: str) -> None:
        for record, version, class_ in self.places:
            try:
                self.opened += open_record(
                    item, wraps, key, origin=origin, record_id=record, version=version, class_=class_, commitment=None
                )
            except EhrfastError:
                continue

    def shows(self, secret: bytes) -> bool:
        """Whether it is in any file as it lies there, or in anything that opens."""
        return any(secret in each for each in (*self.raw, *self.opened))


KINDS = ("subject", "subject-alias", "segment", "state", "identity", "node", "rewriting", "backup")


def medium(clinic: Clinic, kept: Path) -> Everything:
    """Closes the node, takes a copy of its folder as the medium remembers it, and opens it again afterwards."""
    folder = clinic.node.folder
    clinic.node.close()
    if not kept.exists():
        shutil.copytree(folder / "chains", kept / "chains")
    found = Everything(folder, kept)
    clinic.node = Node.open(folder)
    return found


def secrets_of(name: str, *numbers: int) -> dict[str, bytes]:
    """Plaintexts, references and digests of these observations."""
    made = {}
    for number in numbers:
        made[f"text {number}"] = f"finding-{name}-{number}".encode()
        made[f"reference {number}"] = f"obs-{name}-{number}".encode()
    return made


def shown(found: Everything, secrets: dict[str, bytes]) -> set[str]:
    return {label for label, secret in secrets.items() if found.shows(secret)}


def sealed_parts(clinic: Clinic, reference: str) -> dict[str, bytes]:
    """What lies in the log and the state of every version of a record: items, wraps, rows as stored."""
    node, parts = clinic.node, {}
    for each in node._index.versions(reference):
        row = node._record_row(each.record_id, each.version)
        assert row is not None
        assert row.pack_root is not None
        pack = node.chain.segments.read(row.height).stored_pack(row.pack_root)
        stored = node.chain._state.get(state_path("records", (each.record_id, each.version)))
        parts |= {f"item {each.version}": pack.item(row.position), f"wraps {each.version}": pack.wraps(row.position)}
        parts |= {f"row {each.version}": stored, f"digest {each.version}": each.digest}
    return {label: part for label, part in parts.items() if part}


def test_an_erased_record_opens_nowhere_and_everything_else_verifies(clinic: Clinic, tmp_path: Path) -> None:
    node, reference, beside = clinic.node, f"Observation/obs-{GONE}-0", f"Observation/obs-{GONE}-1"
    with clinic.session() as session:
        evidence = session.prove(reference)
        of_other = session.prove(beside, disclose=True)
    content = clinic.read(beside)
    secrets = secrets_of(GONE, 0) | sealed_parts(clinic, reference)
    others = secrets_of(GONE, 1, 2, 7, 8) | secrets_of(STAYS, 0, 1, 2)
    record = node._index.versions(reference)[0]
    before = medium(clinic, tmp_path / "remembered")
    assert shown(before, secrets) == set(secrets)
    node = clinic.node
    order = node._index.references()
    report = node.erase_record(reference)
    assert (report.kind, report.id, report.height) == ("record", record.record_id.hex(), node.chain.published.height)
    assert (report.items, report.segments, report.values, report.transactions) == (4, 1, 2, 1)
    for _ in range(2):  # as it stands, and as it is found again
        assert clinic.read_code(reference) == "record.unknown"
        assert reference not in clinic.listed()
        assert beside in clinic.listed()
        assert [each for each in clinic.node._index.references() if each in order] == [
            each for each in order if each != reference
        ]
        assert clinic.read(beside) == content
        after = medium(clinic, tmp_path / "remembered")
        assert shown(after, secrets) == set()
        assert shown(after, others) == set(others)
    row = clinic.node._record_row(record.record_id, 2)
    assert row is not None
    assert row.has(ERASED)
    assert row.commitment is None
    keys = (("records", (record.record_id, 2)), ("identity", ("identity", row.author)))
    existed = clinic.node.chain.prove(keys)
    for kept, about in ((evidence, None), (of_other, content), (existed, None)):
        kept.save(tmp_path / "kept.proof")
        checked = verify(tmp_path / "kept.proof", key=clinic.node.verifier_key, content=about)
        assert checked.record_id == (record.record_id if about is None else checked.record_id)
    checked = clinic.node.fsck()
    assert checked.ok, checked.faults
    assert (checked.erased.transactions, checked.erased.values) == (1, 2)
    assert checked.erased.items == checked.erased.wraps == report.items
    with pytest.raises(NotFoundError, match=r"record\.unknown"):
        clinic.node.erase_record(reference)
    assert clinic.node.status().erasures == 1
    assert [(each.kind, each.target) for each in clinic.node.erasures] == [("record", record.record_id)]


def test_wraps_of_a_later_frame_go_too(clinic: Clinic, tmp_path: Path) -> None:
    node, reference = clinic.node, f"Observation/obs-{GONE}-8"
    entry = node._index.versions(reference)[0]
    row = node._record_row(entry.record_id, 1)
    assert row is not None
    assert row.pack_root is not None
    pack = node.chain.segments.read(row.height).pack(row.pack_root)
    again = {"record": entry.record_id, "version": 1, "epoch": row.epoch, "attachment": 0}
    node._call_records("rewrap", again, (pack,), node.identities.gateway)
    after = node._record_row(entry.record_id, 1)
    assert after is not None
    assert after.wraps_height > row.height
    assert f"finding-{GONE}-8".encode() in clinic.read(reference)
    secrets = secrets_of(GONE, 8) | sealed_parts(clinic, reference)
    assert shown(medium(clinic, tmp_path / "remembered"), secrets) == set(secrets)
    assert clinic.node.erase_record(reference).items == 4
    assert shown(medium(clinic, tmp_path / "remembered"), secrets) == set()
    # The pack travelled again with its other records as well.
    beside = f"Observation/obs-{GONE}-7"
    secrets = secrets_of(GONE, 7) | sealed_parts(clinic, beside)
    clinic.node.erase_record(beside)
    assert shown(medium(clinic, tmp_path / "remembered"), secrets) == set()
    checked = clinic.node.fsck()
    assert checked.ok, checked.faults


def test_an_erased_patient_opens_nowhere_and_their_audit_stays_with_the_organisation(
    clinic: Clinic, tmp_path: Path
) -> None:
    node, reference = clinic.node, f"Patient/patient-{GONE}"
    subject = node.subjects.known(reference)
    assert subject is not None
    node.identities.enrol(f"name-{GONE}", role="patient", patient=reference)
    with clinic.session() as session:
        of_other = session.prove(f"Observation/obs-{STAYS}-1", disclose=True)
        of_gone = session.prove(f"Observation/obs-{GONE}-1")
    content = clinic.read(f"Observation/obs-{STAYS}-1")
    secrets = secrets_of(GONE, 0, 1, 2, 7, 8) | {"root": subject.root, "reference": f"patient-{GONE}".encode()}
    secrets |= {"name": f"name-{GONE}".encode(), "language": f"lang-{GONE}".encode()}
    secrets |= {f"{n} {k}": v for n in (0, 1, 7) for k, v in sealed_parts(clinic, f"Observation/obs-{GONE}-{n}").items()
                if not k.startswith("row")}  # fmt: skip
    for class_ in CLASSES:
        posted = node.chain._state.get(state_path("records", ("epoch", subject.id, node.subjects.custodian, class_)))
        secrets |= {} if posted is None else {f"epoch {class_}": posted}
    others = secrets_of(STAYS, 0, 1, 2) | {"patient": f"patient-{STAYS}".encode()}
    with clinic.session(clinic.auditor) as session:
        audits = [each.reference for each in session.list("AuditEvent") if each.patient == reference]
        assert len(audits) > 1
    before = medium(clinic, tmp_path / "remembered")
    assert shown(before, secrets) == set(secrets)
    report = clinic.node.erase_patient(reference)
    assert (report.kind, report.id, report.identities) == ("subject", subject.id.hex(), 1)
    assert clinic.node.subjects.by_id(subject.id) is None
    assert clinic.node.subjects.known(reference) is None
    for _ in range(2):
        assert not any(GONE in each for each in clinic.listed())
        assert clinic.read_code(reference) == clinic.read_code(f"Observation/obs-{GONE}-1") == "record.unknown"
        assert clinic.read(f"Observation/obs-{STAYS}-1") == content
        with clinic.session(clinic.auditor) as session:
            assert set(audits) <= {each.reference for each in session.list("AuditEvent")}
            kept = session.read(audits[0]).json()
            assert kept["resourceType"] == "AuditEvent"
            assert GONE not in json.dumps(kept)
        after = medium(clinic, tmp_path / "remembered")
        assert shown(after, secrets) == set()
        assert shown(after, others) == set(others)
    for number, (evidence, about) in enumerate([(of_other, content), (of_gone, None)]):
        evidence.save(tmp_path / f"{number}.proof")
        verify(tmp_path / f"{number}.proof", key=clinic.node.verifier_key, content=about)
    checked = clinic.node.fsck()
    assert checked.ok, checked.faults
    assert checked.erased.items < checked.erased.wraps, "audit items stay for the organisation alone"
    # The patient may come back, as somebody the node has never met.
    with clinic.session() as session:
        session.create(patient(GONE)).result(timeout=60)
    again = clinic.node.subjects.known(reference)
    assert again is not None
    assert again.id != subject.id
    with pytest.raises(NotFoundError, match=r"patient\.unknown"):
        clinic.node.erase_patient("Patient/nobody")


def test_what_a_crash_cut_off_is_carried_out_at_the_next_open(clinic: Clinic, tmp_path: Path) -> None:
    reference = f"Patient/patient-{GONE}"
    subject = clinic.node.subjects.known(reference)
    assert subject is not None
    secrets = secrets_of(GONE, 0, 1, 2, 7, 8) | {"root": subject.root}
    # The block is durable; the node goes down before anything was carried out.
    clinic.node._call_records("erase_subject", {"subject": subject.id, "classes": CLASSES}, (), None)
    assert [each.target for each in clinic.node._eraser.pending()] == [subject.id]
    with Node.open(clinic.node.folder, read_only=True) as beside:
        assert beside.subjects.by_id(subject.id) is not None, "a reader beside the writer changes nothing"
    found = medium(clinic, tmp_path / "remembered")
    assert shown(found, secrets) == set(secrets)
    assert clinic.node.subjects.by_id(subject.id) is None
    assert clinic.node._eraser.pending() == []
    assert shown(medium(clinic, tmp_path / "remembered"), secrets) == set()
    assert clinic.node.fsck().ok


def test_a_subject_that_is_erased_takes_no_more_records(clinic: Clinic) -> None:
    subject = clinic.node.subjects.known(f"Patient/patient-{GONE}")
    assert subject is not None
    clinic.node._call_records("erase_subject", {"subject": subject.id, "classes": CLASSES}, (), None)
    with clinic.session() as session, pytest.raises(ConflictError, match=r"records\.subject_erased"):
        session.create(observation(GONE, 9)).result(timeout=60)


def test_nothing_is_erased_while_a_hold_covers_it(clinic: Clinic) -> None:
    node, reference = clinic.node, f"Observation/obs-{GONE}-1"
    patient_reference = f"Patient/patient-{GONE}"
    held = node.holds.add(reason="litigation", record=reference, by=clinic.auditor)
    for attempt in (lambda: node.erase_record(reference), lambda: node.erase_patient(patient_reference)):
        with pytest.raises(DeniedError, match=r"records\.held"):
            attempt()
    node.erase_record(f"Observation/obs-{GONE}-2")
    node.holds.release(held.id)
    wider = node.holds.add(reason="regulator", patient=patient_reference)
    assert node.status().holds == 1
    assert [each.id for each in node.holds.standing()] == [wider.id]
    assert (wider.kind, wider.reference, wider.reason) == ("subject", patient_reference, "regulator")
    for attempt in (lambda: node.erase_record(reference), lambda: node.erase_patient(patient_reference)):
        with pytest.raises(DeniedError, match=r"records\.held"):
            attempt()
    assert clinic.read(reference)
    with pytest.raises(DeniedError, match=r"records\.not_permitted"):
        node.holds.add(reason="other", record=reference, by=clinic.doctor)
    with pytest.raises(DeniedError, match=r"records\.not_permitted"):
        node.erase_record(reference, by=clinic.doctor)
    with pytest.raises(InvalidInputError, match=r"records\.unknown_reason"):
        node.holds.add(reason="curiosity", record=reference)
    with pytest.raises(ConflictError, match=r"records\.hold_released"):
        node.holds.release(held.id)
    node.holds.release(wider.id, by=clinic.auditor)
    node.erase_patient(patient_reference)
    assert clinic.read_code(reference) == "record.unknown"


def gone_items(clinic: Clinic) -> int:
    checked = clinic.node.fsck()
    assert checked.ok, checked.faults
    assert checked.erased.wraps == 0
    return checked.erased.items


def test_old_versions_are_pruned_their_proofs_hold_and_they_come_back(clinic: Clinic, tmp_path: Path) -> None:
    node, archive, reference = clinic.node, tmp_path / "archive", f"Observation/obs-{GONE}-0"
    with clinic.session() as session:
        old, new = session.read(reference, 1).content, session.read(reference).content
        evidence = session.prove(reference, 1, disclose=True)
    assert node.prune(PrunePolicy(), dry_run=True).versions == 2
    assert node.prune(PrunePolicy(older_than_days=1)).versions == 0
    assert node.prune(PrunePolicy(types=("Patient",))).versions == 0
    held = node.holds.add(reason="complaint", record=f"Observation/obs-{STAYS}-0")
    report = node.prune(PrunePolicy(), archive=archive)
    assert (report.versions, report.held, len(report.archives)) == (1, 1, 1)
    assert report.bytes > len(old)
    assert gone_items(clinic) == 1
    for _ in range(2):
        with clinic.session() as session:
            assert session.read(reference).content == new
            with pytest.raises(NotFoundError, match=r"record\.pruned"):
                session.read(reference, 1)
            again = session.prove(reference, 1)
            assert [each.version for each in session.history(reference)] == [2, 1]
            assert session.read(f"Observation/obs-{STAYS}-0", 1).version == 1
        for each, content in ((evidence, old), (again, None)):
            each.save(tmp_path / "pruned.proof")
            verify(tmp_path / "pruned.proof", key=clinic.node.verifier_key, content=content)
        clinic.node.close()
        clinic.node = Node.open(clinic.node.folder)
    node = clinic.node
    assert node.prune(PrunePolicy()).versions == 0
    with pytest.raises(NotFoundError, match=r"archive\.not_there"):
        node.retrieve(tmp_path / "nowhere")
    back = node.retrieve(archive, record=reference)
    assert (back.versions, back.there, back.erased) == (1, 0, 0)
    assert node.retrieve(archive).there == 1
    with clinic.session() as session:
        assert session.read(reference, 1).content == old
    assert gone_items(clinic) == 0
    node.holds.release(held.id)
    everything = PrunePolicy(keep_versions=0, current=True, classes=("observation",))
    assert node.prune(everything, archive=archive).versions > 2
    assert clinic.read_code(reference) == "record.pruned"
    damaged = next(archive.glob("*.archive"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptionError, match=r"archive\.damaged"):
        node.retrieve(archive)


def test_what_is_erased_comes_back_from_no_archive(clinic: Clinic, tmp_path: Path) -> None:
    archive, reference = tmp_path / "archive", f"Observation/obs-{GONE}-0"
    clinic.node.prune(PrunePolicy(), archive=archive)
    secrets = secrets_of(GONE, 0)
    clinic.node.erase_record(reference)
    assert clinic.node.retrieve(archive).erased == 1
    shutil.copytree(archive, tmp_path / "remembered" / "archive")
    found = medium(clinic, tmp_path / "remembered")
    items = [each.item for each in read_archives(archive, clinic.node.chain.chain_id)]
    assert len(items) == 2
    found.sealed += [(item, b"") for item in items]
    found._records(clinic.node.chain.chain_id)
    assert shown(found, secrets) == set()
    clinic.node.erase_patient(f"Patient/patient-{STAYS}")
    assert clinic.node.retrieve(archive).erased == 2


def test_a_blob_goes_with_its_erasure(clinic: Clinic) -> None:
    reference = f"DocumentReference/large-{GONE}"
    large = {"resourceType": "DocumentReference", "id": f"large-{GONE}", "status": "current"}
    with clinic.session() as session:
        subject = {"reference": f"Patient/patient-{GONE}"}
        session.create(large | {"description": "x" * 80_000, "subject": subject}).result(timeout=60)
    assert clinic.read(reference)
    assert len(list(clinic.node.blobs.list())) == 1
    clinic.node.erase_record(reference)
    assert list(clinic.node.blobs.list()) == []
    checked = clinic.node.fsck()
    assert checked.ok, checked.faults


def test_items_outside_the_log_are_dropped_with_their_erasure(clinic: Clinic, tmp_path: Path) -> None:
    dropped: list[bytes] = []
    node = clinic.node
    node._eraser._drop_blob = dropped.append
    node.prune(PrunePolicy(keep_versions=0, current=True, classes=("observation",)), archive=tmp_path / "archive")
    digests = {}
    for each in read_archives(tmp_path / "archive", node.chain.chain_id):
        pack = node.chain.segments.read(each.height).stored_pack(each.pack_root)
        digests[each.record_id, each.version] = pack.item_digest(each.position)
    first = node._index.versions(f"Observation/obs-{GONE}-0")
    of_first = {digests[each.record_id, each.version] for each in first}
    of_gone = {
        digests[each.record_id, each.version]
        for number in (0, 1, 2, 7, 8)
        for each in node._index.versions(f"Observation/obs-{GONE}-{number}")
    }
    assert not node.status().state_rotation_due
    node.erase_record(f"Observation/obs-{GONE}-0")
    assert set(dropped) == of_first
    assert node.status().state_rotation_due
    node.erase_patient(f"Patient/patient-{GONE}")
    assert set(dropped) == of_gone


def test_a_pruning_that_was_broken_off_is_finished_by_the_next(clinic: Clinic, tmp_path: Path) -> None:
    reference = f"Observation/obs-{GONE}-0"
    entry = clinic.node._index.versions(reference)[0]
    versions = ((entry.record_id, entry.version),)
    clinic.node._call_records("prune", {"versions": versions, "current": False}, (), None)
    with clinic.session() as session:
        assert session.read(reference, 1).version == 1, "its bytes are still there"
    assert clinic.node.prune(PrunePolicy(), archive=tmp_path / "archive").versions == 2
    with clinic.session() as session, pytest.raises(NotFoundError, match=r"record\.pruned"):
        session.read(reference, 1)
    assert clinic.node.retrieve(tmp_path / "archive").versions == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"keep": 1}', '{"keep_versions": true}', '{"keep_versions": 0}', '{"classes": ["audit"]}',
             '{"classes": "document"}', '{"older_than_days": -1}'],
)  # fmt: skip
def test_a_policy_that_says_nothing_sensible_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"prune\.bad_policy"):
        PrunePolicy.load(tmp_path / "policy.json")
    (tmp_path / "policy.json").write_text('{"keep_versions": 2, "classes": ["document"]}')
    assert PrunePolicy.load(tmp_path / "policy.json") == PrunePolicy(keep_versions=2, classes=("document",))
