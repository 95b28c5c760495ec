"""`import ehrfast` stays light: what the command line and the HTTP doors need is not loaded with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.embedding.blocks import ROOT

HEAVY = {"typer", "click", "rich", "fastapi", "starlette", "pydantic", "uvicorn"}
_LIST = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    command: Sequence[str] = (sys.executable, *flags, "-c", code)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def loaded(code: str) -> set[str]:
    return set(json.loads(run(f"{code}; {_LIST}").stdout))


@pytest.mark.parametrize("code", ["import ehrfast", "from ehrfast import Node, verify"])
def test_the_package_loads_no_door(code: str) -> None:
    assert loaded(code) & HEAVY == set()


def test_the_command_line_does_load_one() -> None:
    assert "typer" in loaded("import ehrfast.cli.app")


def test_verifying_needs_no_node() -> None:
    assert "from_node" in run("import sys, ehrfast; print('ehrfast.node' in sys.modules or 'from_node')").stdout


def test_how_long_it_takes_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed for whoever reads the run; a time is never judged by a test."""
    for code in ("import ehrfast", "from ehrfast import Node"):
        lines = run(code, "-X", "importtime").stderr.splitlines()
        total_us = sum(int(line.split("|")[0].removeprefix("import time:")) for line in lines[1:])
        with capsys.disabled():
            print(f"\n{code}: {len(lines) - 1} modules, {total_us / 1000:.0f} ms, the interpreter's own included")
        assert any(line.endswith(" ehrfast") for line in lines)
