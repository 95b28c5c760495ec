"""A real S3-compatible server on loopback: versitygw, built once from the Go module in tests/s3_gateway.

Versioning and object lock work, credentials are random, objects lie in a folder of the test's own. Without Go the tests
that ask for it are skipped with a notice, or fail where EHRFAST_REQUIRE names ``s3``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5, sha256
from hmac import new as hmac
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

SOURCE = Path(__file__).parent / "s3_gateway"
BUILD = Path(__file__).parents[1] / "build" / "s3"
COMMAND = "github.com/versity/versitygw/cmd/versitygw"
REGION = "us-east-1"
START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class S3Server:
    """One server in a process of its own, its objects in a folder.

    Args:
        folder: buckets, older versions and the server's log lie below it.
        endpoint: ``http://127.0.0.1:port``, the same after a restart.
        access_key, secret_key: of its only account.
    """

    folder: Path
    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _buckets: int = 0

    def start(self) -> None:
        """Starts the process and waits until it answers."""
        for name in ("objects", "versions", "iam"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "ROOT_ACCESS_KEY": self.access_key,
            "ROOT_SECRET_KEY": self.secret_key,
        }
        address = self.endpoint.removeprefix("http://")
        options = ["--quiet", "--port", address, "--region", REGION, "--iam-dir", str(self.folder / "iam")]
        backend = ["posix", "--versioning-dir", str(self.folder / "versions"), str(self.folder / "objects")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_program()), *options, *backend], env=environment, stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if self.request("GET", "/").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.stop()
        pytest.fail("the S3 server did not start: " + (self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """Kills it at once, as a power cut would; what it acknowledged stays on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def create_bucket(self, *, versioning: bool = False, lock_days: int | None = None) -> str:
        """A new bucket; object lock implies versioning and holds every object for that many days (compliance)."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        locked = {} if lock_days is None else {"x-amz-bucket-object-lock-enabled": "true"}
        self._done(self.request("PUT", f"/{name}", headers=locked))
        if versioning and lock_days is None:
            body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
            self._done(self.request("PUT", f"/{name}", query={"versioning": ""}, body=body))
        if lock_days is not None:
            rule = f"<Mode>COMPLIANCE</Mode><Days>{lock_days}</Days>"
            rule = f"<Rule><DefaultRetention>{rule}</DefaultRetention></Rule>"
            body = f"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}"
            body += "</ObjectLockConfiguration>"
            self._done(self.request("PUT", f"/{name}", query={"object-lock": ""}, body=body.encode()))
        return name

    def versions(self, bucket: str, prefix: str = "") -> list[tuple[str, str]]:
        """(key, version id) of every stored version, delete markers left out."""
        answer = self.request("GET", f"/{bucket}", query={"versions": "", "prefix": prefix})
        self._done(answer)
        space = "{http://s3.amazonaws.com/doc/2006-03-01/}"
        listed = ElementTree.fromstring(answer.body).iter(f"{space}Version")
        return [(str(each.findtext(f"{space}Key")), str(each.findtext(f"{space}VersionId"))) for each in listed]

    def environment(self) -> dict[str, str]:
        """The variables under which S3 clients find this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One signed request (AWS Signature Version 4).

        Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
        """
        time_ = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = sha256(body).hexdigest()
        signed = {
            "host": self.endpoint.removeprefix("http://"),
            "x-amz-date": time_,
            "x-amz-content-sha256": digest,
            "content-md5": b64encode(md5(body, usedforsecurity=False).digest()).decode(),
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        names = ";".join(sorted(signed))
        pairs = sorted((query or {}).items())
        asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
        listed = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        canonical = "\n".join([method, quote(path), asked, listed, names, digest])
        scope = f"{time_[:8]}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", time_, scope, sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac(key, part.encode(), sha256).digest()
        signature = hmac(key, text.encode(), sha256).hexdigest()
        credential = f"{self.access_key}/{scope}"
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        address = self.endpoint + quote(path) + (f"?{asked}" if asked else "")
        request = urllib.request.Request(address, data=body or None, headers=signed, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=START_SECONDS) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, dict(refused.headers), refused.read())

    @staticmethod
    def _done(answer: Answer) -> None:
        assert 200 <= answer.status < 300, answer.body.decode(errors="replace")


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """A server over a folder, stopped at the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = os.urandom(30).hex()
    server = S3Server(folder, f"http://127.0.0.1:{port}", "access" + os.urandom(7).hex(), secret)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _program() -> Path:
    """The server's binary, built when go.mod or go.sum are not those it was built from."""
    digest = sha256((SOURCE / "go.mod").read_bytes() + (SOURCE / "go.sum").read_bytes()).hexdigest()[:16]
    program = BUILD / f"versitygw-{digest}"
    if program.exists():
        return program
    required = "s3" in os.environ.get("EHRFAST_REQUIRE", "").split(",")
    go = shutil.which("go")
    if go is None:
        _missing("there is no go command", required)
    environment = os.environ | {"GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    fetched = subprocess.run([go, "mod", "download"], cwd=SOURCE, env=environment, capture_output=True, text=True)
    if fetched.returncode != 0:
        _missing(fetched.stderr.strip()[-500:], required)
    BUILD.mkdir(parents=True, exist_ok=True)
    made = BUILD / f"making-{os.getpid()}"
    build = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(made), COMMAND]
    # All that could be missing is there now: whatever fails here is a fault of ours.
    subprocess.run(build, cwd=SOURCE, env=environment, check=True)
    made.rename(program)
    return program


def _missing(reason: str, required: bool) -> None:
    notice = f"no S3 server: {reason}"
    if required:
        pytest.fail(notice)
    pytest.skip(notice)
