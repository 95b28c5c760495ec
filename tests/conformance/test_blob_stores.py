"""What every registered blob store does: keeps by digest, finds changes and losses, refuses by name, leaves no half."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import code_of
from ehrfast._core import keyed_digest
from ehrfast.errors import CorruptionError, InvalidInputError, UnavailableError
from ehrfast.records.blobs import BlobSettings, BlobStore, blob_stores, open_blob_store, store
from ehrfast.records.blobs.local import LocalBlobStore

from tests.s3 import S3Server


@dataclass(frozen=True, slots=True)
class Kept:
    """A store, and a way around it to the bytes it keeps."""

    store: BlobStore
    change: Callable[[bytes, bytes], None]
    unfinished: Callable[[], int]


def _local(tmp_path: Path, _: pytest.FixtureRequest, __: pytest.MonkeyPatch) -> Kept:
    folder = tmp_path / "blobs"
    return Kept(
        open_blob_store(BlobSettings("local:"), tmp_path),
        lambda digest, data: _written(folder / digest.hex(), data),
        lambda: sum(name.name.startswith(".new-") for name in folder.iterdir()),
    )


def _written(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _s3(tmp_path: Path, request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Kept:
    server: S3Server = request.getfixturevalue("s3")
    bucket = server.create_bucket()
    patch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    settings = BlobSettings(f"s3://{bucket}/node", (("endpoint", server.endpoint), ("region", "us-east-1")))

    def change(digest: bytes, data: bytes) -> None:
        assert server.request("PUT", f"/{bucket}/node/blobs/{digest.hex()}", body=data).status == 200

    def unfinished() -> int:
        listed = server.request("GET", f"/{bucket}", query={"list-type": "2", "prefix": "node/unfinished/"})
        return listed.body.count(b"<Key>")

    return Kept(open_blob_store(settings, tmp_path), change, unfinished)


_MADE = {"local": _local, "s3": _s3}


@pytest.fixture(params=blob_stores())
def kept(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Each registered store; one without a way to make it here fails."""
    made = _MADE[request.param](tmp_path, request, monkeypatch)
    yield made
    made.store.close()


def _blob(number: int, size: int = 1000) -> tuple[bytes, bytes]:
    data = bytes([number]) * size
    return keyed_digest("pack-item", data), data


def test_keeps_by_digest(kept: Kept) -> None:
    store, blobs = kept.store, [_blob(number, size) for number, size in enumerate([0, 1, 1000, 200_000])]
    store.put_many(blobs)
    store.put_many([])
    for digest, data in blobs:
        assert store.get(digest) == data
        assert store.size(digest) == len(data)
        assert store.exists(digest)
    digest, data = blobs[3]
    assert store.get_range(digest, 100, 3000) == data[100:3000]
    assert {(each.digest, each.bytes) for each in store.list()} == {(digest, len(data)) for digest, data in blobs}
    now_ms = time.time() * 1000
    assert all(abs(each.modified_ms - now_ms) < 3_600_000 for each in store.list())


def test_putting_again_changes_nothing(kept: Kept) -> None:
    digest, data = _blob(1)
    kept.store.put(digest, data)
    kept.store.put(digest, data)
    assert kept.store.get(digest) == data
    assert len(list(kept.store.list())) == 1


def test_a_changed_blob_is_found(kept: Kept) -> None:
    digest, data = _blob(2)
    kept.store.put(digest, data)
    for changed in (data[:-1], data + b"x", b"", data[:-1] + b"x"):
        kept.change(digest, changed)
        with pytest.raises(CorruptionError) as error:
            kept.store.get(digest)
        assert code_of(error) == "blob.damaged"
    with pytest.raises(CorruptionError) as error:
        kept.store.get_range(digest, 0, len(data) + 1)
    assert code_of(error) == "blob.damaged"


def test_a_missing_blob_is_named(kept: Kept) -> None:
    digest, data = _blob(3)
    assert not kept.store.exists(digest)
    for read in (kept.store.get, lambda digest: kept.store.get_range(digest, 0, 1)):
        with pytest.raises(CorruptionError) as error:
            read(digest)
        assert code_of(error) == "blob.missing"
    kept.store.put(digest, data)
    kept.store.delete(digest)
    kept.store.delete(digest)
    assert not kept.store.exists(digest)
    assert list(kept.store.list()) == []


def test_many_are_deleted_and_what_is_not_there_is_fine(kept: Kept) -> None:
    blobs = [_blob(number) for number in range(5)]
    kept.store.put_many(blobs)
    kept.store.delete_many([])
    kept.store.delete_many([digest for digest, _ in blobs[:4]] + [bytes(32)])
    assert [each.digest for each in kept.store.list()] == [blobs[4][0]]


@pytest.mark.parametrize("size", [0, 1000, 1001, 2500])
def test_a_blob_is_copied_whole_or_not_at_all(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Above 1,000 bytes here as a stream; both ways."""
    monkeypatch.setattr(store, "_STEP_BYTES", 1000)
    other, (digest, data) = LocalBlobStore(tmp_path / "other"), _blob(8, size)
    other.put(digest, data)
    kept.store.copy_from(other, digest)
    assert kept.store.get(digest) == b"".join(kept.store.read_through(digest)) == data
    assert kept.store.fault(digest) is None
    other.delete(digest)
    kept.store.copy_from(other, digest)  # it is there
    kept.change(digest, data + b"x")
    assert kept.store.fault(digest) == "blob.damaged"
    with pytest.raises(CorruptionError, match=r"blob\.damaged"):
        other.copy_from(kept.store, digest)
    assert not other.exists(digest)
    other.put(digest, data)
    kept.store.copy_from(other, digest)
    assert kept.store.get(digest) == data
    with pytest.raises(CorruptionError, match=r"blob\.missing"):
        kept.store.copy_from(other, bytes(32))
    assert kept.unfinished() == 0


def test_a_stream_gets_its_name_at_the_end(kept: Kept) -> None:
    parts = [bytes([number]) * 1_100_000 for number in range(20)]
    digest = keyed_digest("pack-item", b"".join(parts))
    with kept.store.writer() as writer:
        for part in parts:
            writer.write(part)
        assert not kept.store.exists(digest)
        writer.finish(digest)
    assert kept.store.get(digest) == b"".join(parts)
    assert kept.unfinished() == 0


def test_a_stream_that_breaks_off_leaves_no_blob(kept: Kept) -> None:
    def broken() -> None:
        with kept.store.writer() as writer:
            writer.write(bytes(9_000_000))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broken()
    assert list(kept.store.list()) == []
    assert kept.unfinished() == 0


def test_what_was_never_finished_can_be_removed(kept: Kept) -> None:
    kept.store.put(*_blob(4))
    forgotten = kept.store.writer()
    forgotten.write(bytes(9_000_000))
    in_an_hour = int(time.time() * 1000) + 3_600_000
    assert kept.store.remove_unfinished(0) == 0
    if kept.unfinished():  # a bucket shows an upload only once it has ended
        assert kept.store.remove_unfinished(in_an_hour) == 1
    assert kept.unfinished() == 0
    assert len(list(kept.store.list())) == 1


def test_a_server_that_is_down_is_named(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _MADE["s3"](tmp_path, _Given(s3), monkeypatch)  # type: ignore[arg-type]
    digest, data = _blob(5)
    made.store.put(digest, data)
    s3.stop()
    try:
        for do in (lambda: made.store.put(*_blob(6)), lambda: made.store.get(digest), lambda: list(made.store.list())):
            with pytest.raises(UnavailableError) as error:
                do()
            assert code_of(error) == "store.io"
            assert data not in str(error.value).encode()
    finally:
        s3.start()
    assert made.store.get(digest) == data
    assert not made.store.exists(_blob(6)[0])
    made.store.close()


def test_a_wrong_secret_is_denied(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _MADE["s3"](tmp_path, _Given(s3), monkeypatch)  # type: ignore[arg-type]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "0" * 60)
    bucket = s3.create_bucket()
    store = open_blob_store(BlobSettings(f"s3://{bucket}", (("endpoint", s3.endpoint),)), tmp_path)
    with pytest.raises(UnavailableError) as error:
        store.put(*_blob(7))
    assert code_of(error) == "store.denied"
    made.store.close()


@dataclass(frozen=True, slots=True)
class _Given:
    server: S3Server

    def getfixturevalue(self, _: str) -> S3Server:
        return self.server


@pytest.mark.parametrize(
    ("url", "options", "code"),
    [
        ("ftp://host/x", (), "blobs.unknown_store"),
        ("s3://key:secret@bucket", (), "blobs.bad_url"),
        ("s3://", (), "blobs.bad_url"),
        ("s3://bucket", (("secret_access_key", "x"),), "blobs.unknown_option"),
        ("s3://bucket", (("endpoint", "http://key:secret@host"),), "blobs.bad_url"),
        ("local:relative", (), "blobs.bad_url"),
        ("local:", (("endpoint", "x"),), "blobs.unknown_option"),
    ],
)
def test_settings_hold_no_credentials_and_no_nonsense(
    url: str, options: tuple[tuple[str, str], ...], code: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError) as error:
        open_blob_store(BlobSettings(url, options), tmp_path)
    assert code_of(error) == code
