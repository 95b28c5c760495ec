"""fsck names what was changed on disk: file, offset of the frame, height; and never takes a change for sound."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast.errors import EhrfastError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ehrfast.synthetic import generate_bundles

    folder = tmp_path_factory.mktemp("sound")
    (folder / "in").mkdir()
    for number, bundle in enumerate(generate_bundles(2, seed=21, years=1)):
        (folder / "in" / f"{number}.json").write_bytes(bundle)
    with Node.create(folder / "clinic.ehr", organisation="Clinic North") as node:
        node.import_fhir(folder / "in")
    return folder / "clinic.ehr"


def test_a_sound_folder_is_sound(sound: Path) -> None:
    report = Node.fsck_folder(sound)
    assert report.ok
    assert report.blocks == 4
    assert report.transactions == 3


def test_every_changed_bit_of_the_block_log_is_found(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    shutil.copytree(sound, folder)
    [segment] = [file for file in (folder / "chains" / "main" / "log").iterdir() if file.stat().st_size > 4096]
    data = segment.read_bytes()
    written = len(data.rstrip(b"\0"))  # room set aside beyond it holds nothing
    dice = random.Random(20261124)
    for _ in range(60):
        position = dice.randrange(written)
        changed = bytearray(data)
        changed[position] ^= 1 << dice.randrange(8)
        segment.write_bytes(changed)
        report = Node.fsck_folder(folder)
        assert not report.ok, position
        assert segment.name in {fault.file for fault in report.faults}, position
        assert all(fault.offset <= position for fault in report.faults[:1]), position
        with contextlib.suppress(EhrfastError), Node.open(folder) as node:  # most changes keep it from opening at all
            assert not node.fsck().ok, position
        segment.write_bytes(data)


@pytest.mark.parametrize("name", ["chains/main/genesis", "chains/main/checkpoint"])
def test_a_changed_genesis_or_checkpoint_is_named(sound: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "clinic.ehr"
    shutil.copytree(sound, folder)
    file = folder / name
    data = bytearray(file.read_bytes())
    marks = [position for position, byte in enumerate(data) if byte]
    for position in marks[:: max(1, len(marks) // 5)]:
        data[position] ^= 1
    file.write_bytes(data)
    report = Node.fsck_folder(folder)
    assert [fault.file for fault in report.faults] == [file.name]


def test_a_log_cut_below_its_checkpoint_is_found(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    shutil.copytree(sound, folder)
    [segment] = [file for file in (folder / "chains" / "main" / "log").iterdir() if file.stat().st_size > 4096]
    data = segment.read_bytes()
    written = len(data.rstrip(b"\0"))
    segment.write_bytes(data[: written - 100])
    assert not Node.fsck_folder(folder).ok
    with pytest.raises(EhrfastError):
        Node.open(folder)
