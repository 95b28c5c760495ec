"""Making a backup: the chains at one height, the key store's entries, and what the target does not have yet.

Before: a node opened read-only, so that nothing moves. After: a manifest, written last; a backup cut short before it
never was one, and the parts it left are used by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ehrfast._core import KeyStore, SigningKey, blake3_digest, cbor_encode, random_bytes
from ehrfast.backup.manifest import (
    PARTS,
    Blob,
    ChainBackup,
    Listed,
    Manifest,
    Part,
    Segment,
    Snapshot,
    list_manifests,
    put_manifest,
    read_manifest,
    seal,
)
from ehrfast.backup.target import BackupTarget
from ehrfast.chain import cosign
from ehrfast.chain.chain import Chain
from ehrfast.errors import ConflictError, CorruptionError, NotFoundError

PIECE_BYTES: Final = 8 * 1024 * 1024
HEAD_BYTES: Final = 160
"""Key id and salt of a segment's first frame lie within; a frame is longer."""
ENTRY_BATCH_BYTES: Final = 1024 * 1024
LEFT_OUT: Final = frozenset({"state", "backup"})
"""Kinds that no restore wants: a new state is sealed under a new key, and the backup key comes from its export."""
SNAPSHOT_GROWTH: Final = 0.25

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up.

    Args:
        settings: the settings file.
        keys: the key store, opened after the chains, so that no key they name is missing.
        chains: read-only, by name.
        signer: the checkpoint key.
        blobs: of the node's own store: name, size and how to read so many bytes from an offset on.
    """

    settings: bytes
    keys: KeyStore
    chains: Mapping[str, Chain]
    main: str
    signer: SigningKey
    retention_days: int
    now_ms: int
    blobs: Sequence[tuple[str, int, Callable[[int, int], bytes]]] = ()


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What one backup did.

    Args:
        sequence: of the backup.
        height, tree_size, log_root: of the main chain in it.
        copied_parts, copied_bytes: what was written now.
        kept_parts, kept_bytes: what was there already.
        locked: how many objects the target holds under a lock.
        expires_ms: when its key is to be destroyed.
    """

    sequence: int
    id: str
    chain_id: str
    height: int
    tree_size: int
    log_root: str
    copied_parts: int
    copied_bytes: int
    kept_parts: int
    kept_bytes: int
    locked: int
    expires_ms: int


def make_backup(source: Source, target: BackupTarget, progress: Progress | None = None) -> BackupReport:
    """Backs a node up; incremental to the newest backup of the target.

    Raises:
        ConflictError: ``backup.other_node``: the target holds backups of another one; ``backup.ahead``: of a later
            height of this one, so the folder is an older copy.
        UnavailableError: the target cannot be written.
    """
    kept = target.keys()
    listed = list_manifests(target)
    previous, previous_digest = _previous(source, target, listed, kept)
    backup, key = random_bytes(16), random_bytes(32)
    target.add_key(backup, key)
    copying = _Copying(target, backup, key, dict(target.sizes(PARTS)), progress, _bytes_of(source))
    chains = tuple(
        _back_up_chain(name, chain, previous, copying, source, kept) for name, chain in source.chains.items()
    )
    entries = tuple(
        copying.sealed("entries", number, batch) for number, batch in enumerate(_entry_batches(source.keys))
    )
    blobs = _back_up_blobs(source, previous, copying)
    manifest = Manifest(
        sequence=listed[0].sequence + 1 if listed else 1,
        id=backup,
        previous=previous_digest,
        time_ms=source.now_ms,
        retention_days=source.retention_days,
        settings=source.settings,
        chains=chains,
        entries=entries,
        blobs=blobs,
        main=source.main,
        erased_height=source.keys.applied_erasure_height,
    )
    stored = put_manifest(target, manifest, key, source.signer)
    names = [manifest.name, *{part.name for part in manifest.parts()}]
    locked = target.protect(names, manifest.expires_ms)
    main = manifest.chain()
    root = source.chains[source.main].published.log_root
    return BackupReport(
        sequence=manifest.sequence,
        id=backup.hex(),
        chain_id=main.chain_id,
        height=main.height,
        tree_size=main.tree_size,
        log_root=root.hex(),
        copied_parts=copying.copied,
        copied_bytes=copying.copied_bytes + len(stored),
        kept_parts=copying.kept,
        kept_bytes=copying.kept_bytes,
        locked=locked,
        expires_ms=manifest.expires_ms,
    )


def _previous(
    source: Source, target: BackupTarget, listed: Sequence[Listed], keys: Mapping[bytes, bytes]
) -> tuple[Manifest | None, bytes | None]:
    if not listed:
        return None, None
    try:
        manifest, _, digest = read_manifest(target, listed[0], keys)
    except (CorruptionError, NotFoundError):  # a damaged one is no reason to make none: everything is copied again
        return None, None
    for chain in manifest.chains:
        own = source.chains.get(chain.name)
        if own is None or own.chain_id != chain.chain_id:
            raise ConflictError("backup.other_node", {"chain_id": chain.chain_id})
        if own.published.height < chain.height:
            raise ConflictError("backup.ahead", {"height": own.published.height, "backed_up": chain.height})
    return manifest, digest


@dataclass(slots=True)
class _Copying:
    """Writes parts that are not there yet, and counts."""

    target: BackupTarget
    backup: bytes
    key: bytes
    there: dict[str, int]
    progress: Progress | None
    total: int
    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    done: int = field(default=0)

    def plain(self, data: bytes) -> Part:
        """Keeps bytes that are sealed already."""
        part = Part(blake3_digest(data), len(data))
        if self.has(part):
            return self.keep(part)
        self.target.put(part.name, data)
        self.there[part.name] = part.size
        self.copied += 1
        self.copied_bytes += part.size
        self._tell(part.size)
        return part

    def sealed(self, kind: str, number: int, message: bytes) -> Part:
        """Seals a part under this backup's key and keeps it."""
        return self.plain(seal(self.key, self.backup, kind, number, message))

    def has(self, part: Part) -> bool:
        """Whether the target holds a part of that name and size."""
        return self.there.get(part.name) == part.size

    def keep(self, part: Part) -> Part:
        """Counts a part that is there."""
        self.kept += 1
        self.kept_bytes += part.size
        self._tell(part.size)
        return part

    def _tell(self, size: int) -> None:
        self.done += size
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def _bytes_of(source: Source) -> int:
    logs = sum(size for chain in source.chains.values() for _, size in chain.segments.extents())
    return max(1, logs + sum(size for _, size, _ in source.blobs))


def _back_up_chain(
    name: str,
    chain: Chain,
    previous: Manifest | None,
    copying: _Copying,
    source: Source,
    keys: Mapping[bytes, bytes],
) -> ChainBackup:
    before = None if previous is None else next((each for each in previous.chains if each.name == name), None)
    known = {} if before is None else {each.name: each for each in before.segments}
    extents = chain.segments.extents()
    segments = tuple(_back_up_segment(chain, file, size, known.get(file), copying) for file, size in extents)
    log_bytes = sum(size for _, size in extents)
    snapshot = None if before is None else before.snapshot
    if snapshot is None or not _still_good(snapshot, log_bytes, source, copying, keys):
        snapshot = _back_up_snapshot(chain, log_bytes, copying, source.now_ms)
    # Those the chain was opened with: the file may name a newer checkpoint by now.
    cosigned = {each.vkey: each.note.decode() for each in chain.cosigner.cosigned()}
    published = chain.published
    return ChainBackup(
        name=name,
        chain_id=chain.chain_id,
        height=published.height,
        tree_size=published.tree_size,
        note=published.note,
        genesis=(chain.folder / "genesis").read_bytes(),
        cosignatures=cosign.render_cosigned(cosigned) if cosigned else None,
        key_history=chain.key_history.render(),
        segments=segments,
        snapshot=snapshot,
    )


def _back_up_segment(chain: Chain, file: str, size: int, known: Segment | None, copying: _Copying) -> Segment:
    """New frames only, as long as the file is the one that was copied before and not one rewritten since."""
    head = blake3_digest(chain.segments.read_stored(file, 0, HEAD_BYTES))
    pieces: list[Part] = []
    offset = 0
    for piece in known.pieces if known is not None and known.head == head else ():
        if offset + piece.size > size or not copying.has(piece):
            break
        pieces.append(copying.keep(piece))
        offset += piece.size
    while offset < size:
        data = chain.segments.read_stored(file, offset, min(PIECE_BYTES, size - offset))
        if not data:
            raise CorruptionError("log.damaged", {"segment": file, "offset": offset})
        pieces.append(copying.plain(data))
        offset += len(data)
    return Segment(file, head, tuple(pieces))


def _still_good(
    snapshot: Snapshot, log_bytes: int, source: Source, copying: _Copying, keys: Mapping[bytes, bytes]
) -> bool:
    """Whether an earlier snapshot serves: its key outlives this backup's use of it, and replaying from it is short."""
    parts = (snapshot.head, *snapshot.leaves, *snapshot.states)
    young = source.now_ms - snapshot.time_ms <= source.retention_days * 86_400_000 // 2
    near = log_bytes - snapshot.log_bytes <= SNAPSHOT_GROWTH * log_bytes
    if young and near and snapshot.backup in keys and all(map(copying.has, parts)):
        for part in parts:
            copying.keep(part)
        return True
    return False


def _back_up_snapshot(chain: Chain, log_bytes: int, copying: _Copying, now_ms: int) -> Snapshot:
    parts: dict[str, list[Part]] = {"head": [], "leaves": [], "state": []}
    for kind, part in chain.snapshot_parts():
        parts[kind].append(copying.sealed(f"{chain.chain_id}/{kind}", len(parts[kind]), part))
    return Snapshot(
        backup=copying.backup,
        height=chain.published.height,
        time_ms=now_ms,
        log_bytes=log_bytes,
        head=parts["head"][0],
        leaves=tuple(parts["leaves"]),
        states=tuple(parts["state"]),
    )


def _entry_batches(keys: KeyStore) -> Iterator[bytes]:
    batch: list[tuple[str, bytes, bytes]] = []
    size = 0
    for kind in keys.kinds():
        if kind in LEFT_OUT:
            continue
        for identifier in keys.ids(kind):
            value = keys.get(kind, identifier)
            if value is None:
                continue
            batch.append((kind, identifier, value))
            size += len(identifier) + len(value) + 48
            if size >= ENTRY_BATCH_BYTES:
                yield cbor_encode(tuple(batch))
                batch, size = [], 0
    if batch:
        yield cbor_encode(tuple(batch))


def _back_up_blobs(source: Source, previous: Manifest | None, copying: _Copying) -> tuple[Blob, ...]:
    known = {} if previous is None else {each.name: each for each in previous.blobs}
    kept = []
    for name, size, read in source.blobs:
        before = known.get(name)
        if before is not None and before.size == size and all(map(copying.has, before.pieces)):
            pieces = tuple(copying.keep(piece) for piece in before.pieces)
        else:
            pieces = tuple(
                copying.plain(read(offset, min(PIECE_BYTES, size - offset))) for offset in range(0, size, PIECE_BYTES)
            )
        kept.append(Blob(name, pieces))
    return tuple(kept)
