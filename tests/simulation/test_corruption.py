"""Damage everywhere: a small whole node, one place of one file changed at a time, thousands of times from a seed.

What is read is what was written, or a named error. fsck names file, offset, height and kind of every damage, except
for the bytes that docs/formats.md lists as meaning nothing. EHRFAST_SEED chooses the seed, EHRFAST_CORRUPTIONS how
many damages there are.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast._core import LockFile
from ehrfast.chain.fsck import FsckReport
from ehrfast.cli import main
from ehrfast.errors import CorruptionError, DeniedError, InvalidInputError, VerificationError
from ehrfast.synthetic import generate_bundles
from ehrfast.witness import Witness, WitnessServer, follow_log

SEED = int(os.environ.get("EHRFAST_SEED", "20261124"))
DAMAGES = int(os.environ.get("EHRFAST_CORRUPTIONS", "2000"))
WHOLE = 8
"""One damage in so many also goes through a node opened for writing and the command line."""
PAGE = 4096
SLOT = 4096

DONT_CARE = {
    "the process id in a lock file": lambda file, *_: file.name == "lock",
    "zeros reserved behind the last frame, cut off": lambda file, old, new: (
        file.suffix == ".segment" and old.rstrip(b"\0") == new.rstrip(b"\0")
    ),
    "one slot of the checkpoint file, the other being whole": lambda file, old, new: (
        file.name == "checkpoint" and len(new) == 2 * SLOT and bool(_slots(old) & _slots(new))
    ),
    "the key slot of the generation not in force": lambda file, old, new: (
        file.name == "keys.slots" and len(new) == 2 * SLOT and old[_in_force(old)] == new[_in_force(old)]
    ),
    "bytes behind the last record of the key store that never became one, cut off": lambda file, old, new: (
        file.name == "keys.entries" and new.startswith(old)
    ),
    "how root.key is written: large or small digits, space around them": lambda file, old, new: (
        file.name == "root.key" and old.strip().lower() == new.strip().lower()
    ),
    "files of the state database: what is missing there is replayed from the log": lambda file, *_: (
        "state" in file.parts
    ),
}
"""Where fsck may say nothing; each is listed in docs/formats.md under "Bytes that mean nothing"."""

NAMED = {
    "root.key": (InvalidInputError, DeniedError),
    "genesis": (InvalidInputError, VerificationError),
}
"""What keeps a node from opening other than a CorruptionError, by file."""


def _slots(data: bytes) -> set[bytes]:
    return {data[:SLOT], data[SLOT:]}


def _in_force(slots: bytes) -> slice:
    return slice(0, SLOT) if slots[:SLOT].strip(b"\0") else slice(SLOT, 2 * SLOT)


@dataclass(frozen=True, slots=True)
class Sound:
    """A node as it was written."""

    folder: Path
    files: dict[Path, bytes]
    frames: list[tuple[str, int, int]]
    contents: dict[tuple[str, int], bytes]
    physician: str
    readable: frozenset[str]

    @property
    def head(self) -> int:
        return self.frames[-1][2]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """Three patients in three segments, versions, audit events, people, a witness, a closed node."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "in").mkdir()
    files = []
    for number, bundle in enumerate(generate_bundles(3, seed=SEED, years=1)):
        files.append(folder / "in" / f"{number}.json")
        files[-1].write_bytes(bundle)
    contents: dict[tuple[str, int], bytes] = {}
    with (
        Witness.create(folder / "witness") as witness,
        WitnessServer(witness) as server,
        Node.create(folder / "clinic.ehr", organisation="Clinic North") as node,
    ):
        witness.add_log(node.verifier_key)
        node.add_witness(server.url, witness.vkey)
        doctor = node.identities.enrol("physician-1", role="physician")
        for file in files:
            node.import_fhir(file)
            node.chain.segments.roll()
            node.rotate_checkpoint_key()
            follow_log(folder / "witness", node.key_history.render())
        with node.session(doctor, purpose="TREAT") as session:
            for row in session.list("Observation")[:3]:
                document = session.read(row.reference).json()
                session.update({**document, "status": "amended"}).result(timeout=30)
            readable = frozenset(row.reference for row in session.list())
        node._gate.catch_up()
        for reference in node._index.references():
            for entry in node._index.versions(reference):
                contents[reference, entry.version] = node._gate.open(entry, node._gate.row(entry)).content
        frames = [(Path(f).name, at, h) for h in range(node.chain.published.height + 1)
                  for f, at in [node.chain.segments.locate(h)]]
    Node.drop_witness(folder / "clinic.ehr", witness.vkey)
    clinic = folder / "clinic.ehr"
    found = {path.relative_to(clinic): path.read_bytes() for path in sorted(clinic.rglob("*")) if path.is_file()}
    assert len({name for name, _, _ in frames}) >= 3
    assert {Path("chains/main/cosignatures"), Path("chains/main/key-history")} < found.keys()
    assert Node.fsck_folder(clinic).ok
    return Sound(clinic, found, frames, contents, str(doctor), readable)


def damage(data: bytes, dice: random.Random) -> tuple[str, bytes]:
    """One changed place: a bit, the end, two pages or one page twice."""
    written = len(data.rstrip(b"\0"))
    reach = min(len(data), written + PAGE)
    page = min(PAGE, max(16, reach // 4))
    while True:
        kind = dice.choice(["flip", "flip", "flip", "truncate", "swap", "duplicate", "insert"])
        changed = bytearray(data)
        if kind == "flip":
            changed[dice.randrange(reach)] ^= 1 << dice.randrange(8)
        elif kind == "truncate":
            del changed[dice.randrange(reach) :]
        else:
            one, other = (dice.randrange(-(-reach // page)) * page for _ in range(2))
            first, second = data[one : one + page], data[other : other + page]
            if len(first) != len(second):
                continue
            if kind == "swap":
                changed[one : one + page], changed[other : other + page] = second, first
            elif kind == "duplicate":
                changed[other : other + page] = first
            else:
                changed[other:other] = first
        if changed != data:
            return kind, bytes(changed)


def first_difference(old: bytes, new: bytes) -> int:
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if old[low:middle] == new[low:middle] else (low, middle - 1)
    return low


def chosen(sound: Sound, dice: random.Random) -> Path:
    """Segments most often, every other file alike."""
    files = [file for file, data in sound.files.items() if data]
    segments = [file for file in files if file.suffix == ".segment"]
    state = [file for file in files if "state" in file.parts]
    rest = [file for file in files if file not in segments and file not in state]
    return dice.choice(dice.choices([segments, rest, state], [9, 10, 1])[0])


def test_every_damage_is_an_error_or_nothing_at_all(sound: Sound, tmp_path: Path) -> None:
    print(f"EHRFAST_SEED={SEED}")
    dice = random.Random(SEED)
    scratch = tmp_path / "scratch.ehr"
    shutil.copytree(sound.folder, scratch)
    silent: Counter[str] = Counter()
    missed: list[str] = []
    for number in range(DAMAGES):
        file = chosen(sound, dice)
        old = sound.files[file]
        kind, new = damage(old, dice)
        if number == 1:  # which the dice seldom do: a whole file, and something behind it
            file = Path("keys") / "keys.entries"
            old = sound.files[file]
            kind, new = "append", old + dice.randbytes(20)
        place = f"seed {SEED}, damage {number}: {kind} in {file} at {first_difference(old, new)}"
        whole = number % WHOLE == 0 or "state" in file.parts
        try:
            if whole:
                written = tmp_path / "whole.ehr"
                shutil.copytree(sound.folder, written)
                (written / file).write_bytes(new)
                reported = fsck_on_the_command_line(written, place)
                read_by_a_writer(sound, written, file, place)
                shutil.rmtree(written)
            else:
                (scratch / file).write_bytes(new)
                with held(scratch):
                    reported = names_of(Node.fsck_folder(scratch))
                read_beside(sound, scratch, file, place)
                (scratch / file).write_bytes(old)
            judge(sound, file, old, new, reported, silent, place)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of the core is none of Exception's
            missed.append(f"{place}: {type(error).__name__}: {error}")
            shutil.rmtree(tmp_path / "whole.ehr", ignore_errors=True)
            (scratch / file).write_bytes(old)
    print(dict(silent))
    assert not missed, "\n".join([f"{len(missed)} of {DAMAGES}", *missed[:40]])
    if DAMAGES >= 2000:
        assert set(silent) == set(DONT_CARE)  # a line of the list that nothing needs is not on it


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """fsck leaves the state database out beside a running node: it is looked at with whole nodes only."""
    lock = LockFile.acquire(str(folder / "lock"))
    try:
        yield
    finally:
        lock.release()


Named = list[tuple[str, int, "int | None", str]]


def names_of(report: FsckReport) -> Named:
    return [(fault.file, fault.offset, fault.height, fault.kind) for fault in report.faults]


def fsck_on_the_command_line(folder: Path, place: str) -> Named:
    written, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(written, "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["fsck", str(folder), "--json"])
    assert code in (0, 7), (place, err.getvalue())
    report = json.loads(written.getvalue())
    assert report["ok"] == (code == 0), place
    return [(fault["file"], fault["offset"], fault["height"], fault["kind"]) for fault in report["faults"]]


def read_beside(sound: Sound, folder: Path, file: Path, place: str) -> None:
    """Every version through the gate of a node opened for reading, where it opens."""
    try:
        node = Node.open(folder, read_only=True)
    except NAMED.get(file.name, CorruptionError):
        return
    with node:
        try:
            node._gate.catch_up()
        except CorruptionError:
            return
        for (reference, version), content in sound.contents.items():
            (entry,) = [each for each in node._index.versions(reference) if each.version == version]
            try:
                opened = node._gate.open(entry, node._gate.row(entry))
            except CorruptionError:
                continue
            assert opened.content == content, place


def read_by_a_writer(sound: Sound, folder: Path, file: Path, place: str) -> None:
    """The same through a session, audited, on a node opened for writing."""
    try:
        node = Node.open(folder)
    except NAMED.get(file.name, CorruptionError):
        return
    with node:
        assert node.chain.published.height >= sound.head, place
        try:
            session = node.session(node.identities.get(sound.physician), purpose="TREAT")
            readable = [version for version in sound.contents if version[0] in sound.readable]
            for reference, version in readable[::7]:
                content = sound.contents[reference, version]
                assert session.read(reference, version).content == content, place
        except CorruptionError:
            return
    assert "state" not in file.parts or Node.fsck_folder(folder).ok, place


def judge(
    sound: Sound, file: Path, old: bytes, new: bytes, reported: Named, silent: Counter[str], place: str
) -> None:
    """fsck names the damaged file and the place, or the damage is on the list."""
    if not reported:
        allowed = [name for name, covers in DONT_CARE.items() if covers(file, old, new)]
        assert allowed, place
        silent.update(allowed)
        return
    if file.suffix != ".segment":
        name = "state" if "state" in file.parts else file.name
        assert any(named.rpartition("/")[2] == name for named, *_ in reported), (place, reported)
        return
    at = first_difference(old, new)
    frames = [frame for frame in sound.frames if frame[0] == file.name]
    _, offset, height = next(frame for frame in reversed(frames) if frame[1] <= at)
    end = min((other for _, other, _ in frames if other > offset), default=len(old.rstrip(b"\0")))
    expected = {(file.name, offset, height)}
    if at >= end:  # room reserved behind the last frame, whose own last byte may be a zero too
        expected |= {(file.name, end + more, height + 1) for more in range(16)}
    assert expected & {each[:3] for each in reported}, (place, expected, reported)


@pytest.mark.parametrize("known", ["the checkpoint file", "a cosignature"])
def test_a_turned_last_frame_is_no_torn_tail_once_a_checkpoint_covers_it(
    sound: Sound, tmp_path: Path, known: str
) -> None:
    name, offset, height = sound.frames[-1]
    segment = Path("chains/main/log") / name
    data = sound.files[segment]
    end = len(data.rstrip(b"\0"))
    dice = random.Random(SEED)
    folder = tmp_path / "clinic.ehr"
    for position in [offset, offset + 20, *(dice.randrange(offset, end) for _ in range(20)), end - 1]:
        shutil.copytree(sound.folder, folder)
        if known == "a cosignature":
            (folder / "chains" / "main" / "checkpoint").unlink()
        changed = bytearray(data)
        changed[position] ^= 1 << dice.randrange(8)
        (folder / segment).write_bytes(changed)
        with pytest.raises(CorruptionError) as refused:
            Node.open(folder)
        assert refused.value.details["height"] == height, position
        assert (folder / segment).read_bytes() == changed  # nothing was cut off
        assert (name, offset, height) in {each[:3] for each in names_of(Node.fsck_folder(folder))}
        shutil.rmtree(folder)
