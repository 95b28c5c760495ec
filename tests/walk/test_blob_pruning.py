"""Pruning what lies beside the log: blobs go from either store, proofs stay, archives bring the bytes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import code_of
from ehrfast import Node, verify
from ehrfast._core import blake3_digest, cbor_encode
from ehrfast.access.prune import PrunePolicy
from ehrfast.access.session import Session
from ehrfast.errors import CorruptionError, EhrfastError, NotFoundError, UnavailableError
from ehrfast.model.identity import Identity
from ehrfast.records.archive import Archived, archived_blobs, read_archives, write_archive
from ehrfast.records.blobs import BlobSettings, blob_stores, store
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.s3 import S3Server

MIB = 1024 * 1024
COVERAGE = "Coverage/c"
SCAN = "Binary/scan"


def coverage(status: str) -> dict[str, object]:
    return {"resourceType": "Coverage", "id": "c", "status": status, "beneficiary": {"reference": "Patient/p"}}


def scan(number: int) -> bytes:
    return bytes([number]) * (2 * MIB + 17)


@dataclass(slots=True)
class Clinic:
    """A node with two versions of a small blob, of one in pieces and of an observation in the log."""

    node: Node
    doctor: Identity

    def session(self) -> Session:
        return self.node.session(self.doctor, purpose="TREAT")

    def digests(self) -> set[bytes]:
        return {each.digest for each in self.node.blobs.list()}

    def digest_of(self, reference: str, version: int) -> bytes:
        node = self.node
        entry = node._index.versions(reference)[version - 1]
        row = node._record_row(entry.record_id, version)
        assert row is not None
        assert row.pack_root is not None
        return node.chain.read_digest(row.height, row.pack_root, row.position)

    def code(self, reference: str, version: int) -> str:
        with self.session() as session, pytest.raises(EhrfastError) as error:
            session.read(reference, version)
        return error.value.code

    def reopen(self) -> None:
        self.node.close()
        self.node = Node.open(self.node.folder)

    def check(self, *, pruned: int, blobs: int) -> None:
        """Sound, and counted as what it is, in the open node and from the folder."""
        found = self.node.fsck()
        assert found.ok, found.faults
        assert (found.pruned, found.blobs, found.erased.items, found.erased.wraps) == (pruned, blobs, pruned, 0)


@pytest.fixture(params=blob_stores())
def clinic(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """Over each registered store; what is larger than a step is copied as a stream."""
    monkeypatch.setattr(store, "_STEP_BYTES", MIB)
    folder = tmp_path / "clinic.ehr"
    Node.create(folder, organisation="Clinic").close()
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        options = (("endpoint", server.endpoint), ("region", "us-east-1"))
        Node.configure(folder, blobs=BlobSettings(f"s3://{server.create_bucket()}", options))
    made = Clinic(Node.open(folder), Identity(bytes(16), bytes(16)))
    try:
        made.doctor = made.node.identities.enrol("doctor", role="physician")
        observation = {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/p"}}
        with made.session() as session:
            session.create({"resourceType": "Patient", "id": "p"}).result()
            for number, status in enumerate(("draft", "active"), start=1):
                write = session.create if number == 1 else session.update
                write(coverage(status)).result()
                write(observation | {"status": status}).result()
                session.put_binary(
                    [scan(number)], content_type="a/b", patient="Patient/p", resource_id="scan"
                )[1].result()
        assert len(made.digests()) == 4
        yield made
    finally:
        made.node.close()


def test_old_blobs_go_their_proofs_hold_and_they_come_back(clinic: Clinic, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    clinic.check(pruned=0, blobs=4)
    with clinic.session() as session:
        old = session.read(COVERAGE, 1).content
        evidence = session.prove(COVERAGE, 1, disclose=True)
        of_new = session.prove(SCAN, disclose=True)
    went = {clinic.digest_of(COVERAGE, 1), clinic.digest_of(SCAN, 1)}
    stay = clinic.digests() - went
    planned = clinic.node.prune(PrunePolicy(), dry_run=True)
    assert (planned.versions, planned.blobs, planned.segments) == (3, 2, 0)
    assert planned.bytes > 2 * MIB
    assert len(clinic.digests()) == 4
    report = clinic.node.prune(PrunePolicy(), archive=archive)
    assert (report.versions, report.blobs, report.segments, report.bytes) == (3, 2, 1, planned.bytes)
    assert {each.digest for each in archived_blobs(archive).list()} == went
    for _ in range(2):
        assert clinic.digests() == stay
        assert clinic.code(COVERAGE, 1) == clinic.code(SCAN, 1) == "record.pruned"
        with clinic.session() as session:
            assert session.read(COVERAGE).json() == coverage("active")
            assert session.open_binary(SCAN).read() == scan(2)
            again = session.prove(COVERAGE, 1)
            with pytest.raises(NotFoundError, match=r"record\.pruned"):
                session.open_binary(SCAN, 1)
        for each, content in ((evidence, old), (again, None), (of_new, scan(2))):
            each.save(tmp_path / "kept.proof")
            verify(tmp_path / "kept.proof", key=clinic.node.verifier_key, content=content)
        clinic.check(pruned=3, blobs=2)
        clinic.reopen()
    assert clinic.node.prune(PrunePolicy()).versions == 0
    back = clinic.node.retrieve(archive)
    assert (back.versions, back.there, back.erased) == (3, 0, 0)
    assert clinic.node.retrieve(archive).there == 3
    for _ in range(2):
        with clinic.session() as session:
            assert session.read(COVERAGE, 1).content == old
            assert session.open_binary(SCAN, 1).read() == scan(1)
        clinic.check(pruned=0, blobs=4)
        clinic.reopen()


def test_what_came_back_is_looked_for_again(clinic: Clinic, tmp_path: Path) -> None:
    clinic.node.prune(PrunePolicy(), archive=tmp_path / "archive")
    clinic.node.retrieve(tmp_path / "archive", record=COVERAGE)
    assert clinic.code(SCAN, 1) == "record.pruned"
    clinic.check(pruned=2, blobs=3)
    clinic.node.blobs.delete(clinic.digest_of(COVERAGE, 1))
    assert [fault.kind for fault in clinic.node.fsck().faults] == ["blob.missing"]


@pytest.mark.parametrize("step", ["rewrite", "delete", "half"])
def test_a_pruning_cut_off_after_the_chains_word_is_finished_by_the_next(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whatever the next one is asked to prune."""
    archive = tmp_path / "archive"
    went = {clinic.digest_of(COVERAGE, 1), clinic.digest_of(SCAN, 1)}
    node = clinic.node

    def stops(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    delete_many = node.blobs.delete_many

    def half(digests: list[bytes]) -> None:
        delete_many(digests[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "rewrite":
            patched.setattr(node._pruning, "_places", stops)
        else:
            patched.setattr(node.blobs, "delete_many", half if step == "half" else stops)
        with pytest.raises(KeyboardInterrupt):
            node.prune(PrunePolicy(), archive=archive)
    clinic.reopen()
    assert len(clinic.digests() & went) == (1 if step == "half" else 2)
    assert clinic.code(COVERAGE, 1) == clinic.code(SCAN, 1) == "record.pruned"
    report = clinic.node.prune(PrunePolicy(keep_versions=9))
    assert report.versions == {"rewrite": 3, "delete": 2, "half": 1}[step]
    assert clinic.digests() & went == set()
    assert clinic.node.prune(PrunePolicy(keep_versions=9)).versions == 0
    clinic.check(pruned=3, blobs=2)
    assert clinic.node.retrieve(archive).versions == 3
    clinic.check(pruned=0, blobs=4)


def test_a_store_that_fails_leaves_a_pruning_that_can_be_done_again(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("store.io")

    with monkeypatch.context() as patched:
        patched.setattr(clinic.node.blobs, "delete_many", away)
        with pytest.raises(UnavailableError):
            clinic.node.prune(PrunePolicy(), archive=tmp_path / "archive")
    assert clinic.node.prune(PrunePolicy(), archive=tmp_path / "archive").blobs == 2
    with monkeypatch.context() as patched:
        patched.setattr(clinic.node.blobs, "copy_from", away)
        with pytest.raises(UnavailableError):
            clinic.node.retrieve(tmp_path / "archive")
    assert clinic.code(COVERAGE, 1) == "record.pruned"
    assert clinic.node.retrieve(tmp_path / "archive").versions == 3
    clinic.check(pruned=0, blobs=4)


def test_holds_cover_blobs(clinic: Clinic) -> None:
    held = clinic.node.holds.add(reason="complaint", record=SCAN)
    report = clinic.node.prune(PrunePolicy())
    assert (report.versions, report.held, report.blobs) == (2, 1, 1)
    with clinic.session() as session:
        assert session.open_binary(SCAN, 1).read() == scan(1)
    clinic.node.holds.release(held.id)
    assert clinic.node.prune(PrunePolicy()).blobs == 1


def test_a_damaged_blob_is_not_archived_and_a_missing_one_is_not_called_pruned(
    clinic: Clinic, tmp_path: Path
) -> None:
    node, digest = clinic.node, clinic.digest_of(SCAN, 1)
    whole = node.blobs.get(digest)
    node.blobs.put(digest, whole[:-1] + b"x")
    with pytest.raises(CorruptionError) as error:
        node.prune(PrunePolicy(), archive=tmp_path / "archive")
    assert code_of(error) == "blob.damaged"
    assert len(clinic.digests()) == 4
    assert digest not in {each.digest for each in archived_blobs(tmp_path / "archive").list()}
    node.blobs.delete(digest)
    assert node.prune(PrunePolicy(), archive=tmp_path / "archive").versions == 2
    assert clinic.code(SCAN, 1) == "blob.missing"
    assert [fault.kind for fault in node.fsck().faults] == ["blob.missing"]
    node.blobs.put(digest, whole)
    clinic.check(pruned=2, blobs=3)


def test_an_archive_whose_blob_is_changed_or_gone_brings_nothing_back(clinic: Clinic, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    clinic.node.prune(PrunePolicy(), archive=archive)
    kept = archive / "blobs" / clinic.digest_of(SCAN, 1).hex()
    whole = kept.read_bytes()
    for change in (lambda: kept.write_bytes(whole[:-1] + b"x"), kept.unlink):
        change()
        with pytest.raises(CorruptionError) as error:
            clinic.node.retrieve(archive)
        assert code_of(error) == "archive.damaged"
        assert clinic.code(SCAN, 1) == clinic.code(COVERAGE, 1) == "record.pruned"
        clinic.check(pruned=3, blobs=2)
    kept.write_bytes(whole)
    assert clinic.node.retrieve(archive).versions == 3


def test_a_blob_erased_since_comes_back_from_no_archive(clinic: Clinic, tmp_path: Path) -> None:
    clinic.node.prune(PrunePolicy(), archive=tmp_path / "archive")
    clinic.node.erase_record(SCAN)
    assert clinic.node.retrieve(tmp_path / "archive").erased == 1
    assert clinic.node.fsck().ok
    assert clinic.code(SCAN, 1) == "record.unknown"


def test_a_read_that_meets_a_pruning_says_pruned(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = clinic.node.blobs
    get_range = blobs.get_range

    def late(digest: bytes, start: int, end: int) -> bytes:
        monkeypatch.setattr(blobs, "get_range", get_range)
        clinic.node.prune(PrunePolicy())
        return get_range(digest, start, end)

    monkeypatch.setattr(blobs, "get_range", late)
    assert clinic.code(COVERAGE, 1) == "record.pruned"


def test_records_with_fewer_versions_than_are_kept_lose_none(tmp_path: Path) -> None:
    source = tmp_path / "o.ndjson"
    with Node.create(tmp_path / "n", organisation="Clinic") as node:
        for number in range(3):
            source.write_text(json.dumps({"resourceType": "Observation", "id": "o", "status": str(number)}))
            node.import_fhir(source)
        for keep in (3, 4, 5, 100):
            assert node.prune(PrunePolicy(keep_versions=keep)).versions == 0
        assert node.prune(PrunePolicy(keep_versions=2)).versions == 1


ROW = st.builds(
    Archived,
    st.binary(min_size=16, max_size=16),
    st.integers(1, 2**32),
    st.integers(0, 2**32),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 700),
    st.none() | st.binary(max_size=50),
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**40) | st.binary(max_size=40) | st.text("abc", max_size=5),
    lambda inner: st.lists(inner, max_size=6).map(tuple),
    max_leaves=12,
)


@given(rows=st.lists(ROW, max_size=4), flip=st.integers(0), other=VALUE)
@settings(max_examples=50, deadline=None)
def test_archives_read_as_written_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Archived], flip: int, other: object
) -> None:
    folder = tmp_path_factory.mktemp("archive") / "a"
    try:
        files = write_archive(folder, "main", rows)
        assert list(read_archives(folder, "main")) == rows
        assert list(read_archives(folder, "other")) == []
        for path in files:
            data = bytearray(path.read_bytes())
            data[flip % len(data)] ^= 1 << flip % 8
            path.write_bytes(data)
            with pytest.raises(CorruptionError):
                list(read_archives(folder, "main"))
            path.unlink()
        content = cbor_encode((1, "main", (other,)))
        (folder / "x.archive").write_bytes(blake3_digest(content) + content)
        with pytest.raises(CorruptionError):
            list(read_archives(folder, "main"))
    finally:
        shutil.rmtree(folder)
