"""Every block of docs/embedding.md runs, prints what it promises, and passes mypy strict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ehrfast import Node

from tests.embedding.blocks import ROOT, CodeBlock, code_blocks

BLOCKS = code_blocks("docs/embedding.md")
SECTIONS = ("Durability", "Threads", "asyncio", "Several workers", "Fork")


def test_every_section_has_one_paragraph_and_one_block() -> None:
    assert tuple(block.heading for block in BLOCKS) == SECTIONS
    assert all(block.promised for block in BLOCKS)
    for section in (ROOT / "docs/embedding.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        prose = section.partition("```")[0].partition("\n")[2].strip()
        assert prose
        assert "\n\n" not in prose


@pytest.mark.parametrize("block", BLOCKS, ids=SECTIONS)
def test_a_block_runs_as_it_stands(block: CodeBlock, tmp_path: Path, patients: Path) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        node.import_fhir(patients)
    script = tmp_path / "block.py"
    script.write_text(block.code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-W", "error", str(script)]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert tuple(ran.stdout.splitlines()) == block.promised
    with Node.open(tmp_path / "clinic.ehr") as node:
        assert node.fsck().ok


def test_the_blocks_are_typed(tmp_path: Path) -> None:
    files = []
    for number, block in enumerate(BLOCKS):
        files.append(tmp_path / f"block_{number}.py")
        files[-1].write_text(block.code, encoding="utf-8")
    environment = {**os.environ, "MYPYPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *map(str, files)]
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
