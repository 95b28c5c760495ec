"""Programs of others that judge our log, each in an environment of its own under build/outside/.

An environment that cannot be made (no go, no node, no network) skips with a notice, or fails where EHRFAST_REQUIRE
names it: ``go``, ``node`` or ``outside`` for all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / "build" / "outside"
INSTALL_SECONDS = 600
JUDGE_SECONDS = 300


class _CannotBeMadeError(Exception):
    pass


def sumdb() -> list[str]:
    """golang.org/x/mod/sumdb: the note and tlog packages behind the Go checksum database."""
    return [str(_go()), "sumdb"]


def transparency_dev() -> list[str]:
    """github.com/transparency-dev/merkle and formats: Trillian's tree and C2SP texts."""
    return [str(_go()), "transparency-dev"]


def tlog_scales() -> list[str]:
    """PyPI tlog-scales: reads tlog-tiles folders."""
    return [str(_python()), str(HERE / "python" / "judge.py"), "tlog-scales"]


def proofbundle() -> list[str]:
    """PyPI proofbundle: checks tlog-proof texts with witnesses."""
    return [str(_python()), str(HERE / "python" / "judge.py"), "proofbundle"]


def sigstore() -> list[str]:
    """npm @sigstore/verify: sigstore's client in JavaScript."""
    return ["node", str(_node() / "judge.mjs"), "sigstore"]


def command_of(judge: Callable[[], list[str]], requirement: str) -> list[str]:
    """The judge's command line, made ready; skips or fails the test when that cannot be."""
    try:
        return judge()
    except _CannotBeMadeError as reason:
        required = os.environ.get("EHRFAST_REQUIRE", "").split(",")
        if requirement in required or "outside" in required:
            pytest.fail(f"{judge.__name__} cannot judge: {reason}")
        pytest.skip(f"{judge.__name__} cannot judge: {reason}")


def ask(command: Sequence[str], lines: Sequence[str]) -> list[str]:
    """One verdict a line."""
    run = subprocess.run(
        command, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=JUDGE_SECONDS
    )
    assert run.returncode == 0, run.stderr
    verdicts = run.stdout.splitlines()
    assert len(verdicts) == len(lines), run.stderr
    return verdicts


def _go() -> Path:
    program = BUILD / f"go-{_digest('go/go.mod', 'go/go.sum', 'go/main.go')}"
    if not program.exists():
        go = _found("go")
        environment = os.environ | {"GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
        _run([go, "mod", "download"], HERE / "go", environment)
        BUILD.mkdir(parents=True, exist_ok=True)
        # All that could be missing is there now: whatever fails here is a fault of ours.
        subprocess.run([go, "build", "-trimpath", "-o", program, "."], cwd=HERE / "go", env=environment, check=True)
    return program


def _python() -> Path:
    folder = BUILD / f"python-{_digest('python/requirements.txt')}"

    def install() -> None:
        _run([sys.executable, "-m", "venv", folder], HERE)
        listed = HERE / "python" / "requirements.txt"
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        _run([folder / "bin" / "python", "-m", "pip", "install", *options, "-r", listed], HERE)

    _once(folder, install)
    return folder / "bin" / "python"


def _node() -> Path:
    folder = BUILD / f"node-{_digest('node/package-lock.json', 'node/judge.mjs')}"

    def install() -> None:
        npm = _found("npm")
        _found("node")
        shutil.copytree(HERE / "node", folder)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    _once(folder, install)
    return folder


def _once(folder: Path, install: Callable[[], None]) -> None:
    complete = folder / ".complete"
    if complete.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    install()
    complete.touch()


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise _CannotBeMadeError(f"no {program} on this machine")
    return path


def _run(command: Sequence[str | Path], folder: Path, environment: dict[str, str] | None = None) -> None:
    try:
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _CannotBeMadeError(f"{command[0]}: {error}") from error
    if run.returncode:
        raise _CannotBeMadeError(f"{command[0]}: {(run.stderr or run.stdout).strip()[-500:]}")


def _digest(*names: str) -> str:
    return sha256(b"\0".join((HERE / name).read_bytes() for name in names)).hexdigest()[:16]
