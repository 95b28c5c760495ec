"""The static folder of the log: its layout, its growth, and that no file of it can be altered unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from ehrfast._core import Log, SigningKey
from ehrfast.chain import tiles
from ehrfast.chain.tiles import Tile, bundles_of, export_tiles, read_tiles, tiles_of
from ehrfast.errors import ConflictError, CorruptionError, InvalidInputError, VerificationError
from ehrfast.model.checkpoint import Checkpoint, sign_checkpoint, verifier_key

from tests.reference import log as twin

KEY = SigningKey.from_seed(bytes(32))
ORIGIN = "clinic-north-0123456789abcdef0123456789abcdef"
VKEY = verifier_key(ORIGIN, KEY.public_key)
LEAVES = [b"leaf %d" % index for index in range(700)]


def log_of(leaves: list[bytes]) -> Log:
    log = Log()
    log.append(leaves)
    return log


def export(folder: Path, tree_size: int, leaves: list[bytes] = LEAVES, origin: str = ORIGIN) -> bytes:
    log = log_of(leaves)
    note = sign_checkpoint(Checkpoint(origin, tree_size, log.root(tree_size)), KEY)
    export_tiles(log, leaves.__getitem__, note, folder)
    return note


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_example_of_the_specification_has_these_tiles() -> None:
    counted: dict[tuple[int | None, int], int] = {}
    for tile in tiles_of(70_000):
        counted[tile.level, tile.width] = counted.get((tile.level, tile.width), 0) + 1
    assert counted == {(0, 256): 273, (0, 112): 1, (1, 256): 1, (1, 17): 1, (2, 1): 1}
    assert list(tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == list(bundles_of(0)) == []


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [
        (0, 256, "tile/0/000"),
        (999, 1, "tile/0/999.p/1"),
        (1000, 256, "tile/0/x001/000"),
        (1234067, 255, "tile/0/x001/x234/067.p/255"),
    ],
)
def test_a_tile_lies_where_the_specification_says(index: int, width: int, path: str) -> None:
    assert Tile(0, index, width).path == path
    assert Tile(None, index, width).path == path.replace("tile/0", "tile/entries")


@pytest.mark.parametrize("tree_size", [0, 1, 255, 256, 257, 511, 512, 513, 700])
def test_a_folder_holds_the_checkpoint_the_hashes_and_the_entries(tmp_path: Path, tree_size: int) -> None:
    note = export(tmp_path, tree_size)
    expected = {"checkpoint": note}
    for tile in tiles_of(tree_size):
        assert tile.level is not None
        expected[tile.path] = twin.tile(tile.level, tile.index, tile.width, LEAVES)
    for bundle in bundles_of(tree_size):
        leaves = LEAVES[bundle.index * 256 : bundle.index * 256 + bundle.width]
        expected[bundle.path] = b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)
    assert files(tmp_path) == expected
    read = read_tiles(tmp_path, VKEY)
    assert read.checkpoint == Checkpoint(ORIGIN, tree_size, twin.root(LEAVES[:tree_size]))
    assert read.note == note
    assert read.log.tree_size == tree_size


def test_a_folder_grows_and_full_tiles_replace_partial_ones(tmp_path: Path) -> None:
    export(tmp_path, 300)
    export(tmp_path, 513)
    assert "tile/0/001.p/44" not in files(tmp_path)
    grown, fresh = files(tmp_path), tmp_path / "fresh"
    export(fresh, 513)
    # The one hash wide level 1 tile of the first export may stay: the format allows it.
    assert {name: data for name, data in grown.items() if name != "tile/1/000.p/1"} == files(fresh)
    assert read_tiles(tmp_path, VKEY).checkpoint.tree_size == 513


def test_full_bundles_are_not_asked_for_twice(tmp_path: Path) -> None:
    export(tmp_path, 600)
    log = log_of(LEAVES)
    asked: list[int] = []
    seen: list[tuple[int, int]] = []

    def entry_at(index: int) -> bytes:
        asked.append(index)
        return LEAVES[index]

    note = sign_checkpoint(Checkpoint(ORIGIN, 700, log.root()), KEY)
    export_tiles(log, entry_at, note, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert asked == list(range(512, 700))
    assert seen == [(256, 700), (512, 700), (700, 700)]


def test_no_altered_missing_or_foreign_file_passes(tmp_path: Path) -> None:
    export(tmp_path, 600)
    for name, data in files(tmp_path).items():
        path = tmp_path / name
        for broken in (
            data[:-1],
            data + b"\0",
            data[:-1] + bytes([data[-1] ^ 1]),
            bytes([data[0] ^ 1]) + data[1:],
            b"",
        ):
            path.write_bytes(broken)
            with pytest.raises((VerificationError, InvalidInputError)):
                read_tiles(tmp_path, VKEY)
        path.unlink()
        with pytest.raises(VerificationError, match=r"tiles\.missing"):
            read_tiles(tmp_path, VKEY)
        path.write_bytes(data)
    other = verifier_key(ORIGIN, SigningKey.from_seed(b"\1" * 32).public_key)
    with pytest.raises(VerificationError, match=r"checkpoint\.not_signed"):
        read_tiles(tmp_path, other)
    assert read_tiles(tmp_path, VKEY).checkpoint.tree_size == 600


def test_tiles_that_agree_with_each_other_must_also_agree_with_the_checkpoint(tmp_path: Path) -> None:
    export(tmp_path, 300)
    note = (tmp_path / "checkpoint").read_bytes()
    forged = tmp_path / "forged"
    export(forged, 300, [b"forged", *LEAVES[1:]])
    (forged / "checkpoint").write_bytes(note)
    with pytest.raises(VerificationError, match=r"tiles\.root_mismatch"):
        read_tiles(forged, VKEY)


def test_a_full_file_may_stand_in_for_a_partial_one(tmp_path: Path) -> None:
    export(tmp_path, 300)
    old = (tmp_path / "checkpoint").read_bytes()
    export(tmp_path, 700)
    (tmp_path / "checkpoint").write_bytes(old)
    assert read_tiles(tmp_path, VKEY).checkpoint.tree_size == 300


def test_an_export_refuses_what_is_not_its_own_past(tmp_path: Path) -> None:
    export(tmp_path, 300)
    before = files(tmp_path)
    with pytest.raises(ConflictError, match=r"tiles\.other_log"):
        export(tmp_path, 400, origin="another-log")
    with pytest.raises(ConflictError, match=r"tiles\.newer"):
        export(tmp_path, 299)
    with pytest.raises(ConflictError, match=r"tiles\.fork"):
        export(tmp_path, 400, [b"forged", *LEAVES[1:]])
    assert files(tmp_path) == before


def test_an_export_refuses_leaves_the_log_does_not_hold(tmp_path: Path) -> None:
    log = log_of(LEAVES)
    note = sign_checkpoint(Checkpoint(ORIGIN, 700, log.root()), KEY)
    with pytest.raises(CorruptionError) as refusal:
        export_tiles(log, lambda index: b"no" if index == 400 else LEAVES[index], note, tmp_path)
    assert refusal.value.details == {"index": 400}
    assert not (tmp_path / "checkpoint").exists()
    wrong = sign_checkpoint(Checkpoint(ORIGIN, 700, bytes(32)), KEY)
    with pytest.raises(CorruptionError, match=r"tiles\.root_mismatch"):
        export_tiles(log, LEAVES.__getitem__, wrong, tmp_path)
    large = [bytes(2**16)]
    with pytest.raises(InvalidInputError, match=r"tiles\.entry_too_large"):
        export(tmp_path, 1, large)


def test_a_broken_off_export_shows_no_checkpoint_and_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path, 300)
    written: list[Path] = []
    write = tiles._write

    def broken_off(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(tiles, "_write", broken_off)
    with pytest.raises(OSError, match="No space"):
        export(tmp_path, 700)
    monkeypatch.undo()
    assert read_tiles(tmp_path, VKEY).checkpoint.tree_size == 300
    export(tmp_path, 700)
    assert read_tiles(tmp_path, VKEY).checkpoint.tree_size == 700
    assert not [name for name in files(tmp_path) if name.endswith(".new")]


def test_a_damaged_file_of_an_earlier_export_is_written_again(tmp_path: Path) -> None:
    export(tmp_path, 600)
    whole = files(tmp_path)
    for name in whole:
        if name != "checkpoint":
            (tmp_path / name).write_bytes(b"")
    export(tmp_path, 600)
    assert files(tmp_path) == whole
