"""The log as a folder of static files (C2SP tlog-tiles) that any web server can offer and anyone can check.

Owns the layout. Before: a published checkpoint. Writes the checkpoint last, so a folder is complete for the one it
shows at every instant; refuses a folder of another log, of a longer one, or of one that forked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ehrfast._core import Log, log_leaf_hash
from ehrfast.errors import ConflictError, CorruptionError, InvalidInputError, VerificationError
from ehrfast.model.checkpoint import MAX_NOTE_BYTES, Checkpoint, Note, VerifierKey, open_checkpoint

TILE_WIDTH: Final = 256
_LEVEL_BITS: Final = 8
_HASH_BYTES: Final = 32
_LENGTH_BYTES: Final = 2
MAX_ENTRY_BYTES: Final = 2**16 - 1

Progress = Callable[[int, int], None]
"""Called with the number of leaves done and their total."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The place of a tile or entry bundle.

    Args:
        level: tile level, or None for a bundle of entries.
        index: within the level.
        width: 1..256; below 256 the tile is partial.
    """

    level: int | None
    index: int
    width: int

    @property
    def path(self) -> str:
        """Relative to the folder.

        >>> Tile(0, 1234067, 256).path
        'tile/0/x001/x234/067'
        >>> Tile(None, 273, 112).path
        'tile/entries/273.p/112'
        """
        digits = f"{self.index:03d}"
        digits = digits.zfill(-len(digits) % 3 + len(digits))
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        numbered = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        folder = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{folder}/{numbered}{partial}"

    @property
    def full(self) -> Tile:
        """The same place once its tile is full."""
        return Tile(self.level, self.index, TILE_WIDTH)


def tiles_of(tree_size: int) -> Iterator[Tile]:
    """Every hash tile of a tree, level by level; the bundles are those of level 0."""
    level = 0
    while count := tree_size >> (_LEVEL_BITS * level):
        yield from _row(level, count)
        level += 1


def bundles_of(tree_size: int) -> Iterator[Tile]:
    """Every entry bundle of a tree."""
    return _row(None, tree_size)


def _row(level: int | None, count: int) -> Iterator[Tile]:
    whole, rest = divmod(count, TILE_WIDTH)
    for index in range(whole):
        yield Tile(level, index, TILE_WIDTH)
    if rest:
        yield Tile(level, whole, rest)


@dataclass(frozen=True, slots=True)
class TiledLog:
    """A folder that has been checked whole.

    Args:
        checkpoint: what it shows.
        note: the same with its signatures.
        log: the tree, rebuilt from the entries.
    """

    checkpoint: Checkpoint
    note: bytes
    log: Log


def export_tiles(
    log: Log,
    entry_at: Callable[[int], bytes],
    note: bytes,
    folder: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> Checkpoint:
    """Writes the log as it is at a checkpoint, or brings a folder of an earlier export up to it.

    Args:
        log: the tree, at least as large as the checkpoint.
        entry_at: the leaf at an index; asked in ascending order, and only for bundles that are not there yet.
        note: the signed checkpoint; its signature is the caller's, made or checked before.
        folder: made if absent.
        progress: called after every bundle.

    Returns:
        The checkpoint written.

    Raises:
        ConflictError: ``tiles.other_log``, ``tiles.newer`` (the folder shows a larger tree), ``tiles.fork``.
        CorruptionError: ``tiles.entry_mismatch`` (an entry is not the leaf the log holds), ``tiles.root_mismatch``.
        InvalidInputError: ``tiles.entry_too_large``, ``log.size_beyond_log``, ``note.…``, ``checkpoint.malformed``.

    Source: C2SP tlog-tiles.
    """
    root, checkpoint = Path(folder), Checkpoint.parse(Note.parse(note).text)
    tree_size = checkpoint.tree_size
    if log.root(tree_size) != checkpoint.root:
        raise CorruptionError("tiles.root_mismatch", {"tree_size": tree_size})
    _check_successor(root, checkpoint, log)
    for bundle in bundles_of(tree_size):
        if not _holds(root / bundle.path, bundle, log):
            _write(root / bundle.path, _bundle_bytes(bundle, entry_at, log))
        if progress is not None:
            progress(bundle.index * TILE_WIDTH + bundle.width, tree_size)
    for tile in tiles_of(tree_size):
        hashes = log.tile(tile.level or 0, tile.index, tile.width)
        if _read(root / tile.path, len(hashes)) != hashes:
            _write(root / tile.path, hashes)
    _write(root / "checkpoint", note)
    _drop_outgrown(root, tree_size)
    return checkpoint


def read_tiles(folder: str | os.PathLike[str], key: str | VerifierKey, *, progress: Progress | None = None) -> TiledLog:
    """Checks a folder against its checkpoint: every entry, every hash, the root and the log's signature.

    Args:
        folder: as `export_tiles` or any other C2SP log wrote it.
        key: the log's verifier key.
        progress: called after every bundle.

    Raises:
        VerificationError: ``tiles.missing``, ``tiles.mismatch`` (with the file's name), ``tiles.root_mismatch``,
            ``checkpoint.…``.
        InvalidInputError: ``note.…``, ``checkpoint.malformed``.

    Source: C2SP tlog-tiles.
    """
    root = Path(folder)
    note = _read(root / "checkpoint", MAX_NOTE_BYTES + 1)
    if note is None:
        raise VerificationError("tiles.missing", {"file": "checkpoint"})
    checkpoint = open_checkpoint(note, key)
    log = Log()
    for bundle in bundles_of(checkpoint.tree_size):
        log.append(list(read_bundle(root, bundle)))
        if progress is not None:
            progress(log.tree_size, checkpoint.tree_size)
    for tile in tiles_of(checkpoint.tree_size):
        hashes = log.tile(tile.level or 0, tile.index, tile.width)
        stored = _read_tile(root, tile, TILE_WIDTH * _HASH_BYTES)
        if stored[: len(hashes)] != hashes or len(stored) not in (len(hashes), TILE_WIDTH * _HASH_BYTES):
            raise VerificationError("tiles.mismatch", {"file": tile.path})
    if log.root() != checkpoint.root:
        raise VerificationError("tiles.root_mismatch", {"tree_size": checkpoint.tree_size})
    return TiledLog(checkpoint, note, log)


def read_bundle(folder: Path, bundle: Tile) -> Iterator[bytes]:
    """The entries of one bundle, as many as its width says; a full file may stand in for a partial one.

    Raises:
        VerificationError: ``tiles.missing``, ``tiles.mismatch``.
    """
    data = _read_tile(folder, bundle, TILE_WIDTH * (_LENGTH_BYTES + MAX_ENTRY_BYTES))
    entries = _split_bundle(data)
    if entries is None or len(entries) not in (bundle.width, TILE_WIDTH):
        raise VerificationError("tiles.mismatch", {"file": bundle.path})
    return iter(entries[: bundle.width])


def _check_successor(root: Path, checkpoint: Checkpoint, log: Log) -> None:
    shown = _read(root / "checkpoint", MAX_NOTE_BYTES + 1)
    if shown is None:
        return
    older = Checkpoint.parse(Note.parse(shown).text)
    sizes = {"shown": older.tree_size, "tree_size": checkpoint.tree_size}
    if older.origin != checkpoint.origin:
        raise ConflictError("tiles.other_log")
    if older.tree_size > checkpoint.tree_size:
        raise ConflictError("tiles.newer", sizes)
    if log.root(older.tree_size) != older.root:
        raise ConflictError("tiles.fork", sizes)


def _bundle_bytes(bundle: Tile, entry_at: Callable[[int], bytes], log: Log) -> bytes:
    parts = []
    first = bundle.index * TILE_WIDTH
    for index in range(first, first + bundle.width):
        entry = entry_at(index)
        if len(entry) > MAX_ENTRY_BYTES:
            raise InvalidInputError("tiles.entry_too_large", {"index": index, "limit": MAX_ENTRY_BYTES})
        if log_leaf_hash(entry) != log.leaf_hash(index):
            raise CorruptionError("tiles.entry_mismatch", {"index": index})
        parts += [len(entry).to_bytes(_LENGTH_BYTES, "big"), entry]
    return b"".join(parts)


def _holds(path: Path, bundle: Tile, log: Log) -> bool:
    """Whether an earlier export left exactly this bundle; a damaged one is written again."""
    data = _read(path, TILE_WIDTH * (_LENGTH_BYTES + MAX_ENTRY_BYTES))
    entries = None if data is None else _split_bundle(data)
    if entries is None or len(entries) != bundle.width:
        return False
    return b"".join(map(log_leaf_hash, entries)) == log.tile(0, bundle.index, bundle.width)


def _split_bundle(data: bytes) -> list[bytes] | None:
    entries, at = [], 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "big")
        if end > len(data) or start > len(data):
            return None
        entries.append(data[start:end])
        at = end
    return entries


def _read_tile(folder: Path, tile: Tile, limit: int) -> bytes:
    data = _read(folder / tile.path, limit)
    if data is None:
        data = _read(folder / tile.full.path, limit)
    if data is None:
        raise VerificationError("tiles.missing", {"file": tile.path})
    return data


def _read(path: Path, limit: int) -> bytes | None:
    """At most one byte beyond the limit, so that a file too long differs from one that fits."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Under another name first, synced, then renamed: a reader and a crash see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _drop_outgrown(root: Path, tree_size: int) -> None:
    """Removes partial files whose full one is there, as the format allows."""
    for tile in (*bundles_of(tree_size), *tiles_of(tree_size)):
        outgrown = root / f"{tile.path}.p"
        if tile.width == TILE_WIDTH and outgrown.is_dir():
            for partial in outgrown.iterdir():
                partial.unlink(missing_ok=True)
            with suppress(OSError):
                outgrown.rmdir()
