"""The S3 server that other tests rely on does what they rely on: it keeps, versions, locks, and comes back."""

from __future__ import annotations

import obstore
import pytest
from obstore.store import S3Store

from tests.s3 import S3Server


def test_a_client_keeps_and_reads_objects(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    store = S3Store(s3.create_bucket())
    obstore.put(store, "a/b", b"kept")
    assert bytes(obstore.get(store, "a/b").bytes()) == b"kept"
    s3.stop()
    s3.start()
    assert bytes(obstore.get(store, "a/b").bytes()) == b"kept"


def test_wrong_credentials_are_refused(s3: S3Server) -> None:
    bucket = s3.create_bucket()
    other = S3Server(s3.folder, s3.endpoint, s3.access_key, "0" * 60)
    assert s3.request("PUT", f"/{bucket}/one", body=b"1").status == 200
    assert other.request("GET", f"/{bucket}/one").status == 403


def test_versions_are_kept(s3: S3Server) -> None:
    bucket = s3.create_bucket(versioning=True)
    for body in (b"first", b"second"):
        assert s3.request("PUT", f"/{bucket}/one", body=body).status == 200
    assert s3.request("DELETE", f"/{bucket}/one").status == 204
    assert s3.request("GET", f"/{bucket}/one").status == 404
    found = {
        s3.request("GET", f"/{bucket}/one", query={"versionId": version}).body for _, version in s3.versions(bucket)
    }
    assert found == {b"first", b"second"}


def test_a_lock_holds_what_is_written(s3: S3Server) -> None:
    bucket = s3.create_bucket(lock_days=1)
    assert s3.request("PUT", f"/{bucket}/one", body=b"held").status == 200
    [(_, version)] = s3.versions(bucket)
    assert s3.request("DELETE", f"/{bucket}/one", query={"versionId": version}).status == 403
    assert s3.request("GET", f"/{bucket}/one", query={"versionId": version}).body == b"held"
