"""What one backup consists of: the manifest, its encoding, its signature and its seal, and the sealing of parts.

Refuses a manifest that the checkpoint key did not sign, and a part whose bytes are not those the manifest names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ehrfast._core import (
    SigningKey,
    blake3_digest,
    cbor_decode,
    cbor_encode,
    cose_sign1,
    cose_verify1,
    open_part,
    seal_part,
)
from ehrfast.backup.target import BackupTarget
from ehrfast.errors import CorruptionError, EhrfastError, NotFoundError, VerificationError
from ehrfast.model.checkpoint import LOG_SIGNATURE, VerifierKey
from ehrfast.model.key_history import KeyHistory

AAD: Final = b"ehrfast/backup/v1"
PARTS: Final = "parts/"
MANIFESTS: Final = "backups/"
MAX_MANIFEST_BYTES: Final = 1024 * 1024
MAX_INDEX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """An object of the target, named by the BLAKE3 digest of its bytes."""

    digest: bytes
    size: int

    @property
    def name(self) -> str:
        """Where it is kept."""
        return PARTS + self.digest.hex()


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment file of a block log, in pieces from its beginning on.

    Args:
        name: of the file.
        head: BLAKE3 of its first bytes: another after every rewriting.
    """

    name: str
    head: bytes
    pieces: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes in all pieces."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of the node's own store, sealed already, in pieces."""

    name: str
    pieces: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes in all pieces."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at a height: head, leaves and state chunks, sealed under the key of the backup that made them."""

    backup: bytes
    height: int
    time_ms: int
    log_bytes: int
    head: Part
    leaves: tuple[Part, ...]
    states: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class ChainBackup:
    """One chain at a height.

    Args:
        note: its signed checkpoint there.
        genesis: the signed genesis.
        cosignatures: the file of what witnesses had cosigned, or None.
        key_history: the statements of its former checkpoint keys, empty where there are none.
    """

    name: str
    chain_id: str
    height: int
    tree_size: int
    note: bytes
    genesis: bytes
    cosignatures: bytes | None
    key_history: bytes
    segments: tuple[Segment, ...]
    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup.

    Args:
        sequence: counts the backups of a target from 1.
        id: 16 random bytes; names the key it is sealed under.
        previous: BLAKE3 of the manifest before as stored, None for the first.
        retention_days: after that many days its key is destroyed.
        settings: the node's settings file.
        entries: the key store's entries, sealed.
        blobs: those of the node's own store; a store elsewhere is not backed up.
        main: name of the main chain.
        erased_height: up to which height of it the erasures were carried out here.
    """

    sequence: int
    id: bytes
    previous: bytes | None
    time_ms: int
    retention_days: int
    settings: bytes
    chains: tuple[ChainBackup, ...]
    entries: tuple[Part, ...]
    blobs: tuple[Blob, ...] = ()
    main: str = "main"
    erased_height: int = 0

    @property
    def name(self) -> str:
        """Where it is kept."""
        return f"{MANIFESTS}{self.sequence:08d}-{self.id.hex()}"

    @property
    def expires_ms(self) -> int:
        """When its key is to be destroyed."""
        return self.time_ms + self.retention_days * 86_400_000

    def chain(self) -> ChainBackup:
        """The main chain."""
        return next(each for each in self.chains if each.name == self.main)

    def parts(self) -> Iterator[Part]:
        """Every part it needs."""
        yield from self.entries
        yield from (piece for blob in self.blobs for piece in blob.pieces)
        for chain in self.chains:
            for segment in chain.segments:
                yield from segment.pieces
            if chain.snapshot is not None:
                yield chain.snapshot.head
                yield from chain.snapshot.leaves
                yield from chain.snapshot.states

    def encode(self) -> bytes:
        """CBOR; see docs/formats.md."""
        return cbor_encode(
            (
                1,
                self.sequence,
                self.id,
                self.previous,
                self.time_ms,
                self.retention_days,
                self.settings,
                self.main,
                self.erased_height,
                tuple(_chain_row(each) for each in self.chains),
                _rows(self.entries),
                tuple((each.name, _rows(each.pieces)) for each in self.blobs),
            )
        )

    @staticmethod
    def decode(data: bytes) -> Manifest:
        """Reads what `encode` gives.

        Raises:
            CorruptionError: ``backup.manifest_malformed``.
        """
        try:
            value: Any = cbor_decode(data, MAX_INDEX_BYTES)
            version, sequence, id_, previous, time_ms, days, settings, main, erased, chains, entries, blobs = value
            if version != 1:
                raise ValueError
            manifest = Manifest(
                sequence,
                id_,
                previous,
                time_ms,
                days,
                settings,
                tuple(_chain_of(row) for row in chains),
                _parts(entries),
                tuple(Blob(name, _parts(pieces)) for name, pieces in blobs),
                main,
                erased,
            )
            if manifest.encode() != data or not any(each.name == main for each in manifest.chains):
                raise ValueError
        except (EhrfastError, ValueError, TypeError):
            raise CorruptionError("backup.manifest_malformed") from None
        return manifest


def _rows(parts: tuple[Part, ...]) -> tuple[tuple[bytes, int], ...]:
    return tuple((part.digest, part.size) for part in parts)


def _parts(rows: Any) -> tuple[Part, ...]:
    return tuple(Part(digest, size) for digest, size in rows)


def _chain_row(chain: ChainBackup) -> tuple[object, ...]:
    kept = chain.snapshot
    snapshot = kept and (
        kept.backup,
        kept.height,
        kept.time_ms,
        kept.log_bytes,
        (kept.head.digest, kept.head.size),
        _rows(kept.leaves),
        _rows(kept.states),
    )
    segments = tuple((each.name, each.head, _rows(each.pieces)) for each in chain.segments)
    return (
        chain.name,
        chain.chain_id,
        chain.height,
        chain.tree_size,
        chain.note,
        chain.genesis,
        chain.cosignatures,
        chain.key_history,
        segments,
        snapshot,
    )


def _chain_of(row: Any) -> ChainBackup:
    name, chain_id, height, tree_size, note, genesis, cosignatures, history, segments, kept = row
    snapshot = None
    if kept is not None:
        backup, at, time_ms, log_bytes, head, leaves, states = kept
        snapshot = Snapshot(backup, at, time_ms, log_bytes, Part(*head), _parts(leaves), _parts(states))
    listed = tuple(Segment(each, head, _parts(pieces)) for each, head, pieces in segments)
    return ChainBackup(name, chain_id, height, tree_size, note, genesis, cosignatures, history, listed, snapshot)


# ── sealed and signed ───────────────────────────────────────────────────────────────────────────────────────────────


def seal(key: bytes, backup: bytes, kind: str, number: int, message: bytes) -> bytes:
    """Seals one part; kind, number and backup are its place, and it opens nowhere else."""
    return seal_part(key, _place(backup, kind, number), message)


def unseal(key: bytes, backup: bytes, kind: str, number: int, sealed: bytes) -> bytes:
    """Opens what `seal` gave.

    Raises:
        CorruptionError: ``backup.part_damaged``.
    """
    return open_part(key, _place(backup, kind, number), sealed)


def _place(backup: bytes, kind: str, number: int) -> bytes:
    return cbor_encode((AAD, backup, kind, number))


def put_manifest(target: BackupTarget, manifest: Manifest, key: bytes, signer: SigningKey) -> bytes:
    """Signs, seals and keeps a manifest; gives the bytes kept.

    The signature is over its digest, so that one of many gigabytes fits a signed message.
    """
    encoded = manifest.encode()
    signed = cose_sign1(signer, blake3_digest(encoded), AAD)
    stored = seal(key, manifest.id, "manifest", manifest.sequence, cbor_encode((signed, encoded)))
    target.put(manifest.name, stored)
    return stored


@dataclass(frozen=True, slots=True)
class Listed:
    """A manifest of a target: its name, and what the name says."""

    name: str
    sequence: int
    id: bytes


def list_manifests(target: BackupTarget) -> list[Listed]:
    """The manifests of a target, the newest first; other names are nobody's."""
    found = []
    for name in target.sizes(MANIFESTS):
        number, _, backup = name.removeprefix(MANIFESTS).partition("-")
        if len(number) == 8 and number.isdigit() and len(backup) == 32:
            try:
                found.append(Listed(name, int(number), bytes.fromhex(backup)))
            except ValueError:
                continue
    return sorted(found, key=lambda each: each.sequence, reverse=True)


def read_manifest(target: BackupTarget, listed: Listed, keys: Mapping[bytes, bytes]) -> tuple[Manifest, bytes, bytes]:
    """(manifest, public key that signed it, BLAKE3 of what is stored).

    Raises:
        NotFoundError: ``backup.key_destroyed``, ``backup.missing_part``.
        CorruptionError: ``backup.part_damaged``, ``backup.manifest_malformed``.
        VerificationError: ``signature.invalid``.
    """
    key = keys.get(listed.id)
    if key is None:
        raise NotFoundError("backup.key_destroyed", {"part": listed.name})
    stored = target.get(listed.name)
    try:
        opened = unseal(key, listed.id, "manifest", listed.sequence, stored)
    except CorruptionError:
        raise CorruptionError("backup.part_damaged", {"part": listed.name}) from None
    pair: Any = cbor_decode(opened, MAX_INDEX_BYTES)
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise CorruptionError("backup.manifest_malformed")
    digest, signer = cose_verify1(pair[0], AAD)
    manifest = Manifest.decode(pair[1])
    if blake3_digest(pair[1]) != digest or (manifest.sequence, manifest.id) != (listed.sequence, listed.id):
        raise CorruptionError("backup.manifest_malformed")
    return manifest, signer, blake3_digest(stored)


def get_part(target: BackupTarget, part: Part) -> bytes:
    """The bytes of a part, which are those the manifest names.

    Raises:
        NotFoundError: ``backup.missing_part``.
        CorruptionError: ``backup.part_damaged``.
    """
    data = target.get(part.name)
    if len(data) != part.size or blake3_digest(data) != part.digest:
        raise CorruptionError("backup.part_damaged", {"part": part.name})
    return data


def without_snapshot(chain: ChainBackup) -> ChainBackup:
    """The chain without its snapshot: its state is then replayed from the log."""
    return replace(chain, snapshot=None)


def history_of(chain: ChainBackup, signer: bytes) -> KeyHistory:
    """The keys of a chain, which must end with the one that signed its manifest.

    Raises:
        VerificationError: ``backup.other_signer``.
    """
    current = VerifierKey(chain.chain_id, LOG_SIGNATURE, signer)
    history = KeyHistory.parse(chain.key_history) if chain.key_history else KeyHistory.of(current)
    if history.current != current:
        raise VerificationError("backup.other_signer")
    return history


def signers_of(manifest: Manifest, signer: bytes) -> frozenset[bytes]:
    """The public checkpoint keys that the node of a manifest has had."""
    return frozenset(each.public_key for chain in manifest.chains for each in history_of(chain, signer).keys)
