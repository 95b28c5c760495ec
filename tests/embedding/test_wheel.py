"""The README's first block, cut out of the README, in an empty environment that holds the built wheel and nothing else.

It must run beside a folder of Bundles, and pass mypy and pyright at their strictest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from tests.conftest import require
from tests.embedding.blocks import ROOT, code_blocks

BLOCK: Final = code_blocks("README.md")[0].code
RUN_TIME: Final = {"ehrfast", "numpy"}
"""All that the wheel may bring along."""


@dataclass(frozen=True, slots=True)
class EmptyEnvironment:
    """A Python that knows the wheel."""

    python: Path

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs it without any of our own variables."""
        return subprocess.run(
            [str(self.python), *arguments], cwd=cwd, env=_clean(), capture_output=True, text=True, timeout=600
        )


def _clean() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EHRFAST", "VIRTUAL"))}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a release would ship it; built in the checkout's own target, so that it is built once."""
    require("wheel", shutil.which("cargo") is not None and find_spec("maturin") is not None)
    out = tmp_path_factory.mktemp("wheel")
    target = ROOT / "target"
    variables = {"CARGO_TARGET_DIR": str(target if target.is_dir() else out / "target"), **_clean()}
    command = [sys.executable, "-m", "maturin", "build", "--locked", "--release", "--out", str(out)]
    built = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    found = list(out.glob("*.whl"))
    assert [each.name.split("-")[2:4] for each in found] == [["cp311", "abi3"]]
    return found[0]


@pytest.fixture(scope="session")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> EmptyEnvironment:
    """An environment with pip alone, then the wheel."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=True)
    made = EmptyEnvironment(folder / "bin" / "python")
    # The version the lock names: most likely in pip's cache already, where there is no network.
    installed = made.run("-m", "pip", "install", "--quiet", f"numpy=={np.__version__}", cwd=folder)
    require("wheel", installed.returncode == 0)
    installed = made.run("-m", "pip", "install", "--quiet", "--no-index", str(wheel), cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return made


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The block as a file."""
    file = tmp_path / "readme.py"
    file.write_text(BLOCK, encoding="utf-8")
    return file


def test_the_wheel_brings_nothing_but_numpy(empty: EmptyEnvironment, tmp_path: Path) -> None:
    listed = json.loads(empty.run("-m", "pip", "list", "--format", "json", cwd=tmp_path).stdout)
    assert {each["name"] for each in listed} - {"pip", "setuptools"} == RUN_TIME


def test_the_first_block_runs(empty: EmptyEnvironment, script: Path, patients: Path) -> None:
    assert patients.parent == script.parent
    before = datetime.now(UTC).replace(microsecond=0)
    ran = empty.run("-W", "error", script.name, cwd=script.parent)
    assert (ran.returncode, ran.stderr) == (0, "")
    day, clock, chain_id, tree_size = ran.stdout.split()
    assert before <= datetime.fromisoformat(f"{day} {clock}") <= datetime.now(UTC)
    assert re.fullmatch(r"main-[0-9a-f]{32}", chain_id)
    assert int(tree_size) > 4
    assert (script.parent / "bp.proof").stat().st_mode & 0o077 == 0


def test_the_proof_it_saved_is_checked_by_a_second_process(
    empty: EmptyEnvironment, script: Path, patients: Path
) -> None:
    """With the key and the content the block had in hand, and nothing of the node's folder."""
    keep = "from pathlib import Path\nPath('key').write_text(key)\nPath('content').write_bytes(record.content)\n"
    script.write_text(BLOCK + keep, encoding="utf-8")
    assert empty.run(script.name, cwd=script.parent).returncode == 0
    shutil.rmtree(script.parent / "clinic.ehr")
    check = (
        "from pathlib import Path; from ehrfast import errors, verify\n"
        "key, content = Path('key').read_text(), Path('content').read_bytes()\n"
        "print(verify('bp.proof', key=key, content=content).content_matches)\n"
        "try: verify('bp.proof', key=key, content=content + b' ')\n"
        "except errors.VerificationError as error: print(error.code)\n"
    )
    shown = empty.run("-c", check, cwd=script.parent)
    assert shown.stdout.split() == ["True", "envelope.commitment_mismatch"], shown.stderr


def test_the_command_line_says_what_is_missing(empty: EmptyEnvironment, tmp_path: Path) -> None:
    ran = empty.run("-m", "ehrfast.cli", "--help", cwd=tmp_path)
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    assert "ehrfast[cli]" in ran.stderr


def mypy(empty: EmptyEnvironment, file: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--python-executable", str(empty.python), "--cache-dir", str(file.parent / "cache")]
    command = [sys.executable, "-m", "mypy", "--config-file", os.devnull, *options, file.name]
    return subprocess.run(command, cwd=file.parent, env=_clean(), capture_output=True, text=True)


def pyright(empty: EmptyEnvironment, file: Path) -> subprocess.CompletedProcess[str]:
    here = Path(sys.executable).parent
    found = shutil.which("pyright", path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")
    require("pyright", found is not None)
    settings = {"typeCheckingMode": "strict", "include": [file.name]}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [str(found), "--pythonpath", str(empty.python), "--project", str(file.parent)]
    return subprocess.run(command, cwd=file.parent, env=_clean(), capture_output=True, text=True)


MISTAKES: Final = {
    "checked.nothing": "print(checked.nothing)\n",
    "an untyped receipt": "receipt.height.upper()\n",
    "a wrong argument": "verify(1, key=key)\n",
}


def test_it_passes_mypy_strict(empty: EmptyEnvironment, script: Path) -> None:
    checked = mypy(empty, script)
    assert checked.returncode == 0, checked.stdout


def test_it_passes_pyright_strict(empty: EmptyEnvironment, script: Path) -> None:
    checked = pyright(empty, script)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_seen_through_the_installed_types(empty: EmptyEnvironment, script: Path, mistake: str) -> None:
    """What passed above passed because of types, not for want of them."""
    script.write_text(BLOCK + mistake, encoding="utf-8")
    assert mypy(empty, script).returncode == 1
