"""Blob stores that fail: a named error, nothing acknowledged that is not there, nothing in the log; then again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import code_of
from ehrfast import Node
from ehrfast.access.session import Session
from ehrfast.errors import CorruptionError, UnavailableError
from ehrfast.model.identity import Identity
from ehrfast.records.blobs import BlobSettings, local

from tests import faulty_s3
from tests.faulty_s3 import Fault, FaultyS3
from tests.s3 import S3Server

MIB = 1024 * 1024
MARK = "marked-coverage"
COVERAGE = {"resourceType": "Coverage", "id": "c", "status": MARK}
FILM = bytes(range(256)) * (10 * MIB // 256)
"""More than one part of an upload."""


@dataclass(slots=True)
class Clinic:
    """A node, and whoever writes there."""

    node: Node
    doctor: Identity

    def session(self) -> Session:
        return self.node.session(self.doctor, purpose="TREAT")

    def put_record(self) -> None:
        with self.session() as session:
            session.create(COVERAGE).result()

    def put_film(self) -> None:
        with self.session() as session:
            chunks = (FILM[start : start + MIB] for start in range(0, len(FILM), MIB))
            session.put_binary(chunks, content_type="video/mp4", resource_id="f")[1].result()

    def read_record(self) -> None:
        with self.session() as session:
            assert session.read("Coverage/c").json() == COVERAGE

    def read_film(self) -> None:
        with self.session() as session:
            assert session.open_binary("Binary/f").read() == FILM

    def nothing_recorded(self) -> None:
        with self.session() as session:
            assert session.list("Coverage") == session.list("Binary") == []
        found = self.node.fsck()
        assert (found.ok, found.blobs) == (True, 0)

    def refuses(self, do: Callable[[], None]) -> str:
        """The code of what it raises, which tells nothing of any record."""
        with pytest.raises((UnavailableError, CorruptionError)) as error:
            do()
        assert MARK not in str(error.value)
        return code_of(error)


WRITES = ("put_record", "put_film")
READS = ("read_record", "read_film")


def opened(folder: Path, blobs: BlobSettings | None = None) -> Clinic:
    Node.create(folder, organisation="Clinic").close()
    if blobs is not None:
        Node.configure(folder, blobs=blobs)
    node = Node.open(folder)
    return Clinic(node, node.identities.enrol("doctor", role="physician"))


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyS3]:
    with faulty_s3.faulty(s3) as made:
        yield made


@pytest.fixture
def remote(tmp_path: Path, s3: S3Server, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """A node whose bucket is behind the proxy, and who gives up soon."""
    for name, value in (("MAX_RETRIES", 1), ("RETRY_TIMEOUT_S", 2), ("REQUEST_TIMEOUT_S", 1)):
        monkeypatch.setattr(f"ehrfast.records.blobs.s3.{name}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    options = (("endpoint", proxy.endpoint), ("region", "us-east-1"))
    made = opened(tmp_path / "n", BlobSettings(f"s3://{s3.create_bucket()}", options))
    try:
        yield made
    finally:
        proxy.fault = None
        made.node.close()


FAILED: list[tuple[str, Fault, set[str]]] = [
    ("500", faulty_s3.status(500), {"store.io"}),
    ("503", faulty_s3.status(503, "SlowDown"), {"store.io"}),
    ("507", faulty_s3.status(507, "InsufficientStorage"), {"store.full"}),
    ("403", faulty_s3.status(403, "AccessDenied"), {"store.denied"}),
    ("cut", faulty_s3.cut_at_once, {"store.io"}),
    ("cut after doing", faulty_s3.cut_after_doing, {"store.io"}),
    ("never", faulty_s3.never, {"store.timeout"}),
]


@pytest.mark.parametrize(("fault", "codes"), [each[1:] for each in FAILED], ids=[each[0] for each in FAILED])
def test_a_bucket_that_fails_at_writing(remote: Clinic, proxy: FaultyS3, fault: Fault, codes: set[str]) -> None:
    for write in WRITES:
        with proxy.failing(fault, "PUT", "POST"):
            assert remote.refuses(getattr(remote, write)) in codes
    remote.nothing_recorded()
    for name in (*WRITES, *READS):
        getattr(remote, name)()
    assert remote.node.fsck().ok


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        *(each[1:] for each in FAILED if each[0] in ("500", "403", "cut", "never")),
        (faulty_s3.half_an_answer, {"store.io", "blob.damaged"}),
        (faulty_s3.changed_answer, {"blob.damaged", "pieces.cannot_open", "pieces.malformed", "envelope.cannot_open"}),
    ],
    ids=["500", "403", "cut", "never", "half an answer", "changed bytes"],
)
def test_a_bucket_that_fails_at_reading(remote: Clinic, proxy: FaultyS3, fault: Fault, codes: set[str]) -> None:
    for write in WRITES:
        getattr(remote, write)()
    for read in READS:
        with proxy.failing(fault, "GET"):
            assert remote.refuses(getattr(remote, read)) in codes
    for read in READS:
        getattr(remote, read)()
    assert remote.node.fsck().ok


def test_one_failure_is_tried_again_without_a_word(remote: Clinic, proxy: FaultyS3) -> None:
    with proxy.failing(faulty_s3.status(503, "SlowDown"), "PUT", times=1):
        remote.put_record()
    with proxy.failing(faulty_s3.status(503, "SlowDown"), "GET", times=1):
        remote.read_record()


def test_bytes_changed_on_the_way_up_are_refused_by_the_server(remote: Clinic, proxy: FaultyS3) -> None:
    for write in WRITES:
        with proxy.failing(faulty_s3.changed_request, "PUT"):
            assert remote.refuses(getattr(remote, write)) in {"store.io", "store.denied"}
    remote.nothing_recorded()


def test_an_object_that_is_shorter_than_it_was_is_named(remote: Clinic, s3: S3Server) -> None:
    for write in WRITES:
        getattr(remote, write)()
    for each in list(remote.node.blobs.list()):
        whole = remote.node.blobs.get(each.digest)
        remote.node.blobs.put(each.digest, whole[:-1])
    assert remote.refuses(remote.read_record) == "blob.damaged"
    assert remote.refuses(remote.read_film) == "pieces.cannot_open"
    assert {fault.kind for fault in remote.node.fsck().faults} == {"blob.damaged"}


def test_a_server_killed_while_a_film_goes_up(remote: Clinic, s3: S3Server) -> None:
    def chunks() -> Iterator[bytes]:
        yield FILM
        s3.stop()
        yield FILM

    try:
        with remote.session() as session, pytest.raises(UnavailableError) as error:
            session.put_binary(chunks(), content_type="video/mp4")
        assert code_of(error) == "store.io"
    finally:
        s3.start()
    remote.nothing_recorded()
    remote.put_film()
    remote.read_film()


KILLED = """
import os, sys, signal
from ehrfast import Node
node = Node.open(sys.argv[1])
doctor = node.identities.get(sys.argv[2])
def chunks():
    for _ in range(10):
        yield bytes(1048576)
    print("half", flush=True)
    signal.pause()
node.session(doctor, purpose="TREAT").put_binary(chunks(), content_type="video/mp4", resource_id="f")
"""


@pytest.mark.parametrize("scheme", ["local", "s3"])
def test_a_process_killed_while_a_film_goes_up(tmp_path: Path, request: pytest.FixtureRequest, scheme: str) -> None:
    blobs, environment = None, dict(os.environ)
    if scheme == "s3":
        server: S3Server = request.getfixturevalue("s3")
        blobs = BlobSettings(f"s3://{server.create_bucket()}", (("endpoint", server.endpoint),))
        environment |= server.environment()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        clinic = opened(tmp_path / "n", blobs)
        clinic.node.close()
        command = [sys.executable, "-c", KILLED, str(tmp_path / "n"), str(clinic.doctor)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"half\n"
            child.send_signal(signal.SIGKILL)
        clinic.node = Node.open(tmp_path / "n")
        clinic.nothing_recorded()
        assert list(clinic.node.blobs.list()) == []
        clinic.put_film()
        clinic.read_film()
        clinic.node.blobs.remove_unfinished(2**53)
        if scheme == "local":
            assert len(list((tmp_path / "n" / "blobs").iterdir())) == 1
        clinic.read_film()
        clinic.node.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "folder"])
def test_a_disk_that_fails_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    clinic = opened(tmp_path / "n")
    clinic.node.blobs.put(bytes(32), b"before")

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, "injected")

    class Os:
        """The module, one call of it failing."""

        def __getattr__(self, name: str) -> object:
            return fails if name == step else getattr(os, name)

    codes = {errno.EIO: "store.io", errno.EROFS: "store.read_only"}
    for write in WRITES:
        with monkeypatch.context() as patched:
            if step == "rename":
                patched.setattr(Path, "rename", fails)
            elif step == "folder":
                patched.setattr(local, "sync_folder", fails)
            else:
                patched.setattr(local, "os", Os())
            assert clinic.refuses(getattr(clinic, write)) == codes.get(number, "store.full")
        assert not [path for path in (tmp_path / "n" / "blobs").iterdir() if path.name.startswith(".new-")]
    clinic.nothing_recorded()
    for name in (*WRITES, *READS):
        getattr(clinic, name)()
    clinic.node.close()


LIMITED = """
import resource, sys
from ehrfast import Node
from ehrfast.errors import UnavailableError
with Node.open(sys.argv[1]) as node:
    session = node.session(node.identities.get(sys.argv[2]), purpose="TREAT")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
    try:
        session.put_binary([bytes(1 << 20)] * 10, content_type="a/b", resource_id="f")
    except UnavailableError as error:
        print(error.code)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    session.put_binary([bytes(1 << 20)] * 10, content_type="a/b", resource_id="f")[1].result()
"""


def test_a_file_that_may_not_grow_further(tmp_path: Path) -> None:
    """The kernel's own refusal, in the middle of a blob."""
    clinic = opened(tmp_path / "n")
    clinic.node.close()
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "n"), str(clinic.doctor)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "store.full\n"
    assert len(list((tmp_path / "n" / "blobs").iterdir())) == 1
    with Node.open(tmp_path / "n") as node, node.session(clinic.doctor, purpose="TREAT") as session:
        assert session.open_binary("Binary/f").size == 10 * MIB
