"""Pruning: old versions leave the log and the blob store by a policy, and come back from their archive.

Before: versions that no hold covers. After: their items are digests, every proof holds, their wraps wait. The archive
is durable before the chain says so, the chain says so before bytes go; one broken off is finished by the next pruning,
whatever its policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from ehrfast.access.erase import RECORD, SUBJECT, RecordsCall, places_of
from ehrfast.access.holds import Holds
from ehrfast.chain.chain import Chain
from ehrfast.errors import CorruptionError, InvalidInputError, NotFoundError
from ehrfast.model.identity import Identity
from ehrfast.model.record import DELETED, ERASED, PRUNED, RecordRow
from ehrfast.records.archive import BLOBS, Archived, archived_blobs, read_archives, write_archive
from ehrfast.records.blobs.store import BlobStore
from ehrfast.records.classes import AUDIT, CLASSES
from ehrfast.records.index.memory import Entry, RecordIndex
from ehrfast.records.placement import BLOB

BATCH: Final = 700
DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """Which versions may go.

    Args:
        keep_versions: the newest so many of each record stay.
        older_than_days: only versions recorded longer ago, by the newest block's time.
        classes: only these; all but ``audit`` when empty. Audit events are never pruned.
        types: only these FHIR types; all when empty.
        current: whether current versions may go too; without it ``keep_versions`` is at least 1.
    """

    keep_versions: int = 1
    older_than_days: int = 0
    classes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    current: bool = False

    def __post_init__(self) -> None:
        least = 0 if self.current else 1
        known = set(self.classes) <= set(CLASSES) - {AUDIT}
        if self.keep_versions < least or self.older_than_days < 0 or not known:
            raise InvalidInputError("prune.bad_policy")

    @staticmethod
    def load(path: Path) -> PrunePolicy:
        """Reads a JSON object with these members, each optional.

        Raises:
            InvalidInputError: ``prune.bad_policy``.
        """
        kinds: dict[str, type] = {"keep_versions": int, "older_than_days": int, "current": bool}
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            named = {each.name for each in fields(PrunePolicy)}
            if not set(value) <= named:
                raise TypeError
            for name, member in value.items():
                listed = isinstance(member, list) and all(isinstance(each, str) for each in member)
                if not (type(member) is kinds[name] if name in kinds else listed):
                    raise TypeError
            members: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            return PrunePolicy(**members)
        except (OSError, ValueError, TypeError, AttributeError):
            raise InvalidInputError("prune.bad_policy") from None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a pruning did, or would do.

    Args:
        versions: record versions whose bytes went.
        held: versions left because a legal hold covers them.
        bytes: of their sealed items.
        blobs: how many of the versions lay outside the log.
        segments: files written anew.
        archives: names of the files that hold them now.
    """

    versions: int
    held: int
    bytes: int
    blobs: int
    segments: int
    archives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetrieveReport:
    """What came back.

    Args:
        versions: whose bytes are in the log again.
        there: were there already.
        erased: are not taken back, because they were erased since.
    """

    versions: int
    there: int
    erased: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    entry: Entry
    row: RecordRow
    size: int
    digest: bytes | None
    """Of an item that lies outside the log."""


class Pruning:
    """Prunes and retrieves for one custodian."""

    def __init__(
        self,
        chain: Chain,
        index: RecordIndex,
        blobs: BlobStore,
        holds: Holds,
        row_of: Callable[[bytes, int], RecordRow | None],
        call: RecordsCall,
    ) -> None:
        self._chain = chain
        self._index = index
        self._blobs = blobs
        self._holds = holds
        self._row_of = row_of
        self._call = call

    def prune(
        self, policy: PrunePolicy, *, archive: Path | None, dry_run: bool, by: Identity | None
    ) -> PruneReport:
        """Lets the bytes of every version go that the policy names and no hold covers.

        Raises:
            CorruptionError: ``blob.damaged``: a blob to be archived is not what was recorded; nothing has gone.
            UnavailableError: the archive or the blob store cannot be written; pruning again carries on.
        """
        held_records, held_subjects = self._held()
        chosen: list[_Candidate] = []
        covered = 0
        for each in self._candidates(policy):
            if each.entry.record_id in held_records or each.row.subject in held_subjects:
                covered += 1
            else:
                chosen.append(each)
        size = sum(each.size for each in chosen)
        outside = [each.digest for each in chosen if each.digest is not None]
        if dry_run or not chosen:
            return PruneReport(len(chosen), covered, size, len(outside), 0, ())
        files = [] if archive is None else self._archive(archive, chosen)
        fresh = [each for each in chosen if not each.row.has(PRUNED)]
        for start in range(0, len(fresh), BATCH):
            versions = tuple((c.entry.record_id, c.entry.version) for c in fresh[start : start + BATCH])
            self._call("prune", {"versions": versions, "current": policy.current}, (), by)
        items = [place for each in chosen if each.digest is None for place in self._places(each.row)]
        segments = self._chain.segments.rewrite(items=items)[0] if items else 0
        self._chain.forget_recent()
        self._blobs.delete_many(outside)
        return PruneReport(len(chosen), covered, size, len(outside), segments, tuple(path.name for path in files))

    def retrieve(self, archive: Path, *, reference: str | None, by: Identity | None) -> RetrieveReport:
        """Puts back what an archive holds of pruned versions, each checked against the digest in the log.

        Raises:
            CorruptionError: ``archive.damaged``; nothing has come back.
            InvalidInputError: ``log.other_item``: the archive holds other bytes than went.
            UnavailableError: log or blob store cannot be written; retrieving again carries on.
        """
        wanted = None if reference is None else {each.record_id for each in self._index.versions(reference)}
        if wanted is not None and not wanted:
            raise NotFoundError("record.unknown")
        restores: list[tuple[int, int, int, bytes]] = []
        versions: dict[tuple[bytes, int], bool] = {}
        there = erased = 0
        for each in read_archives(archive, self._chain.chain_id):
            name = (each.record_id, each.version)
            if (wanted is not None and each.record_id not in wanted) or name in versions:
                continue
            row = self._row_of(*name)
            if row is None or row.has(ERASED) or self._is_erased(row):
                erased += 1
            elif not row.has(PRUNED):
                there += 1
            else:
                versions[name] = True
                if (each.item is None) != (row.place == BLOB):
                    raise CorruptionError("archive.damaged")
                if each.item is None:
                    self._retrieve_blob(archive, row)
                else:
                    restores += [(*place, each.item) for place in self._places(row)]
        if restores:
            self._chain.segments.rewrite(restores=restores)
        if versions:
            names = list(versions)
            for start in range(0, len(names), BATCH):
                self._call("restore", {"versions": tuple(names[start : start + BATCH])}, (), by)
        return RetrieveReport(len(versions), there, erased)

    def _held(self) -> tuple[set[bytes], set[bytes]]:
        standing = self._holds.standing()
        records, subjects = ([h.target for h in standing if h.kind == kind] for kind in (RECORD, SUBJECT))
        return set(map(bytes.fromhex, records)), set(map(bytes.fromhex, subjects))

    def _candidates(self, policy: PrunePolicy) -> Iterator[_Candidate]:
        """What the policy names, and what an earlier pruning named and did not get to; as far as bytes are there."""
        before_ms = self._chain.published.time_ms - policy.older_than_days * DAY_MS
        stored: dict[bytes, int] | None = None
        for reference in self._index.references():
            versions = list(self._index.versions(reference))
            entry = versions[0]
            if entry.record_class == AUDIT:
                continue
            fits = not policy.types or entry.resource_type in policy.types
            fits = fits and (not policy.classes or entry.record_class in policy.classes)
            obsolete = len(versions) - policy.keep_versions if fits else 0
            for number, entry in enumerate(versions):
                named = number < obsolete and entry.time_ms <= before_ms
                if not named and not self._index.is_pruned(entry):
                    continue
                row = self._row_of(entry.record_id, entry.version)
                if row is None or row.pack_root is None or row.has(ERASED) or row.has(DELETED):
                    continue
                if row.place == BLOB:
                    if stored is None:
                        stored = {each.digest: each.bytes for each in self._blobs.list()}
                    digest = self._chain.read_digest(row.height, row.pack_root, row.position)
                    if digest in stored:  # one that is missing is damage for `fsck` to name, unless it went before
                        yield _Candidate(entry, row, stored[digest], digest)
                    continue
                item = self._item(row)
                if item is not None:
                    yield _Candidate(entry, row, len(item), None)

    def _item(self, row: RecordRow) -> bytes | None:
        if row.pack_root is None:
            return None
        return self._chain.segments.read(row.height).stored_pack(row.pack_root).item(row.position)

    def _archive(self, folder: Path, chosen: Sequence[_Candidate]) -> list[Path]:
        """Blobs first: what the files name is there."""
        with closing(archived_blobs(folder)) as kept:
            for each in chosen:
                if each.digest is not None:
                    kept.copy_from(self._blobs, each.digest)
        return write_archive(folder, self._chain.chain_id, self._archived(chosen))

    def _archived(self, chosen: Iterable[_Candidate]) -> Iterator[Archived]:
        """Their items, read again one at a time: together they may be larger than memory."""
        for each in chosen:
            entry, row = each.entry, each.row
            item = self._item(row) if each.digest is None else None
            if row.pack_root is not None and (each.digest is not None or item is not None):
                yield Archived(entry.record_id, entry.version, row.height, row.pack_root, row.position, item)

    def _retrieve_blob(self, folder: Path, row: RecordRow) -> None:
        if row.pack_root is None:
            return
        digest = self._chain.read_digest(row.height, row.pack_root, row.position)
        with closing(archived_blobs(folder)) as kept:
            fault = kept.fault(digest)
            if fault is not None:
                raise CorruptionError("archive.damaged", {"file": f"{BLOBS}/{digest.hex()}", "fault": fault})
            self._blobs.copy_from(kept, digest)

    def _places(self, row: RecordRow) -> list[tuple[int, int, int]]:
        return [] if row.pack_root is None else places_of(self._chain, row.height, row.pack_root, row.position)

    def _is_erased(self, row: RecordRow) -> bool:
        arguments = {"subject": row.subject, "custodian": row.custodian}
        return self._chain.view("records", "subject_erased", arguments) is not None
