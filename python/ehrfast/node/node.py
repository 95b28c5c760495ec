"""One organisation's node: key store, chains, gate and sessions over one folder. The embedded API hangs off it.

One process owns a folder for writing; another may open it read-only. After a fork it must be opened anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal
from weakref import WeakSet

from ehrfast._core import KeyStore, LockFile, SealedPack, SigningKey, random_bytes
from ehrfast.access.audit import AuditWriter
from ehrfast.access.blobs import Collected, collect_orphans
from ehrfast.access.erase import Eraser, Erasing, Erasure, ErasureReport, Plan
from ehrfast.access.gate import Gate
from ehrfast.access.holds import Holds
from ehrfast.access.import_fhir import Importer, ImportReport
from ehrfast.access.prune import PrunePolicy, PruneReport, Pruning, RetrieveReport
from ehrfast.access.session import Session
from ehrfast.access.sign import sign_call
from ehrfast.access.write import RecordWriter
from ehrfast.backup.erased import Erasure as ListedErasure
from ehrfast.backup.make import BackupReport
from ehrfast.backup.unproven import Head, require_unmarked, unmark
from ehrfast.chain.chain import Chain
from ehrfast.chain.clock import wall_ms
from ehrfast.chain.cosign import WitnessState
from ehrfast.chain.fsck import FsckReport
from ehrfast.chain.state_key import is_due, mark_rotation, rotate
from ehrfast.consensus.lanes import ROUTINE, URGENT
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from ehrfast.keys.backup_key import BACKUP_KIND, ROOT, backup_root_key
from ehrfast.keys.root_key import (
    KeySource,
    RootKeySource,
    destroy_key_file,
    incoming,
    make_key_file,
    new_source,
    read_root_key,
)
from ehrfast.keys.signing import CHECKPOINT_KEY, NODE_KIND, HeldIdentity, SigningKeys, checkpoint_key
from ehrfast.keys.subjects import Subjects
from ehrfast.model.ask_witness import WitnessAddress
from ehrfast.model.checkpoint import VerifierKey, verifier_key
from ehrfast.model.durable import sync_folder
from ehrfast.model.identity import Identity
from ehrfast.model.key_history import KeyHistory
from ehrfast.model.record import RecordRow
from ehrfast.node.backup import back_up, list_erasures
from ehrfast.node.check import check
from ehrfast.node.folder import (
    CHAINS,
    KEYS,
    LOCK,
    bytes_below,
    chain_id,
    chain_names,
    filling,
    found_chain,
    new_root_key,
    open_keys,
    remove_contents,
)
from ehrfast.node.identities import Identities, enrolment
from ehrfast.node.restore import RestoreReport, matched, restore
from ehrfast.node.settings import MAX_RETENTION_DAYS, Settings
from ehrfast.node.status import Cosignature, Status
from ehrfast.records.blobs import BlobSettings, open_blob_store
from ehrfast.records.index.memory import RecordIndex
from ehrfast.records.placement import Placement, require_types

MAIN: Final = "main"


class Node:
    """An open node. Build with `create` or `open`; close it, or use it in a ``with`` block."""

    def __init__(
        self, folder: Path, settings: Settings, keys: KeyStore, lock: LockFile | None, chains: dict[str, Chain]
    ) -> None:
        self.folder = folder
        self.settings = settings
        self._keys = keys
        self._lock = lock
        self._chains = chains
        self._chain = chain = chains[settings.main_chain]
        self._pid = os.getpid()
        self._closed = False
        _OPEN.add(self)
        self.signing_keys = SigningKeys(keys)
        self.subjects = Subjects(keys, settings.organisation, self._posted_epoch)
        self.identities = Identities(self)
        self.blobs = open_blob_store(settings.blobs, folder)
        self._eraser = Eraser(
            chain,
            keys,
            self.subjects,
            self.signing_keys,
            settings.organisation,
            self.blobs.delete,
            retention_days=settings.retention_days,
        )
        if lock is not None:
            self._eraser.apply()  # what a crash cut off; before anything is read
        self._index = RecordIndex(chain.chain_id, self.subjects, self._record_row)
        follower = chain.subscribe(self._index.apply)
        gateway = self.signing_keys.get(settings.gateway).key
        audit = AuditWriter(chain, self.subjects, gateway, self._last_sequence)
        self._gate = Gate(chain, self.subjects, self._index, follower, audit, self.blobs)
        placement = Placement.of(dict(settings.placement))
        self._writer = RecordWriter(chain, self.subjects, self._index, self.blobs, placement)
        self.holds = Holds(
            chain, self.subjects, self._index, settings.organisation, self._call_records, self._gate.catch_up
        )
        self._pruning = Pruning(
            chain, self._index, self.blobs, self.holds, self._record_row, self._call_records
        )
        self._erasing = Erasing(
            chain,
            self.subjects,
            self._index,
            self._eraser,
            self._call_records,
            self._gate.catch_up,
            self._writer.forget,
        )

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def create(
        folder: str | os.PathLike[str], *, organisation: str, chain: str = MAIN, root_key: RootKeySource | None = None
    ) -> Node:
        """Makes a new node in a new or empty folder, and opens it.

        Args:
            organisation: the organisation's name, kept in the node's settings.
            chain: name of its chain, 1 to 17 of ``a-z0-9-``.
            root_key: where the root key comes from; by default the environment, else a new 0600 file in the folder.

        Raises:
            ConflictError: ``node.exists``: the folder is not empty.
            UnavailableError: ``store.full``, ``store.read_only`` or ``store.io``; what was made is removed again.
        """
        path = Path(folder)
        with filling(path):
            Node._make(path, organisation, chain, root_key)
        try:
            return Node.open(path)
        except BaseException:
            remove_contents(path)
            raise

    @staticmethod
    def _make(path: Path, organisation: str, chain: str, root_key: RootKeySource | None) -> None:
        """Keys, genesis, block 0 and, last of all, the settings that make the folder a node."""
        source = new_root_key(path, root_key)
        keys = KeyStore.create(str(path / KEYS), read_root_key(source, path))
        signing_keys = SigningKeys(keys)
        administrator = HeldIdentity(random_bytes(16), "organisation_admin", SigningKey.generate(), "administrator")
        gateway = HeldIdentity(random_bytes(16), "gateway", SigningKey.generate(), "gateway")
        signer = SigningKey.generate()
        signing_keys.put(administrator)
        signing_keys.put(gateway)
        keys.put([(NODE_KIND, CHECKPOINT_KEY, signer.seed()), (BACKUP_KIND, ROOT, random_bytes(32))])
        settings = Settings(organisation, random_bytes(16), administrator.id, gateway.id, source, chain)
        found_chain(path, chain, settings, administrator=administrator, keys=keys, signer=signer)
        settings.save(path)
        keys.close()

    @staticmethod
    def open(
        folder: str | os.PathLike[str],
        *,
        read_only: bool = False,
        trust_clock: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Node:
        """Opens a node.

        Args:
            read_only: beside a writer, at the last durable height; nothing is written, so no record can be read
                through a session (its audit event could not be kept).
            trust_clock: the operator's word that a clock far ahead of the newest block is right.
            progress: called with (blocks read, blocks there).

        Raises:
            NotFoundError: ``node.not_there`` or ``root_key.missing``.
            ConflictError: ``node.locked``, with the owner's pid; ``node.restored``: a restored folder is for reading
                only until a checkpoint from outside matches it, see `allow_writing`.
            DeniedError: ``keys.wrong_root_key`` or ``root_key.exposed``.
            CorruptionError: stored bytes are not what was written.
        """
        path = Path(folder)
        settings = Settings.load(path)
        if not read_only:
            require_unmarked(path)
        lock = None if read_only else LockFile.acquire(str(path / LOCK))
        keys: KeyStore | None = None
        chains: dict[str, Chain] = {}
        try:
            keys, settings = open_keys(path, settings, read_only=read_only)
            signer = checkpoint_key(keys)
            names = chain_names(path)
            if settings.main_chain not in names:
                raise NotFoundError("chain.unknown", {"chain": settings.main_chain})
            if not read_only:
                for name in names:
                    rotate(path / CHAINS / name, keys, chain_id(path / CHAINS / name))
            for name in names:
                chains[name] = Chain.open(
                    path / CHAINS / name,
                    keys=keys,
                    signer=signer,
                    runtime=Runtime(Registry.default()),
                    read_only=read_only,
                    trust_clock=trust_clock,
                    witnesses=settings.witnesses,
                    progress=progress,
                )
        except BaseException:
            for chain in chains.values():
                chain.close()
            if keys is not None:
                keys.close()
            if lock is not None:
                lock.release()
            raise
        newest_ms = max(chain.published.time_ms for chain in chains.values())
        for chain in chains.values():
            chain.clock.learn(newest_ms)
        node = Node(path, settings, keys, lock, chains)
        try:
            node._enrol_missing_gateways()
        except BaseException:
            node.close()
            raise
        return node

    def close(self) -> None:
        """Commits what was submitted, then lets go of the folder."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        for chain in self._chains.values():
            chain.close()
        if self._lock is not None and self._chain.failure is None:
            for chain in self._chains.values():
                rotate(chain.folder, self._keys, chain.chain_id)
        self.blobs.close()
        self._keys.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Node({self._chain.chain_id}, height={self._chain.published.height})"

    # ── use ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def chain(self) -> Chain:
        """The main chain."""
        self._require_usable()
        return self._chain

    @property
    def chains(self) -> Mapping[str, Chain]:
        """All chains of this node by name; sessions and records live on the main one."""
        self._require_usable()
        return MappingProxyType(self._chains)

    def chain_named(self, name: str) -> Chain:
        """One chain.

        Raises:
            NotFoundError: ``chain.unknown``.
        """
        found = self.chains.get(name)
        if found is None:
            raise NotFoundError("chain.unknown", {"chain": name})
        return found

    def add_chain(self, name: str) -> Chain:
        """Begins another chain of this organisation: its own log and state, the same administrator and checkpoint key.

        Args:
            name: 1 to 17 of ``a-z0-9-``.

        Raises:
            InvalidInputError: ``genesis.name``.
            ConflictError: ``chain.exists``.
            UnavailableError: ``chain.read_only``.
        """
        self._require_writing()
        if name in self._chains:
            raise ConflictError("chain.exists", {"chain": name})
        administrator = self.signing_keys.get(self.settings.administrator)
        signer = checkpoint_key(self._keys)
        found_chain(self.folder, name, self.settings, administrator=administrator, keys=self._keys, signer=signer)
        chain = Chain.open(
            self.folder / CHAINS / name,
            keys=self._keys,
            signer=signer,
            runtime=Runtime(Registry.default()),
            witnesses=self.settings.witnesses,
        )
        self._chains[name] = chain
        self._enrol_gateway(name)
        return chain

    @property
    def verifier_key(self) -> str:
        """The C2SP verifier key that evidence of this node is checked with."""
        return _vkey(self._chain)

    def session(self, identity: Identity, *, purpose: str) -> Session:
        """Opens a session; every read and write of records goes through one.

        Raises:
            InvalidInputError: ``purpose.unknown``.
            DeniedError: ``identity.unknown``.
        """
        self._require_usable()
        try:
            key = self.signing_keys.get(identity.id).key
        except NotFoundError:
            key = None
        return Session(self._gate, self._writer, identity, purpose, key)

    def import_fhir(
        self, *paths: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
    ) -> ImportReport:
        """Imports FHIR files and folders as the gateway; see `access.import_fhir`."""
        self._require_usable()
        self._gate.catch_up()
        report = Importer(self._writer, self.signing_keys.get(self.settings.gateway).key).run(paths, progress)
        self._gate.catch_up()
        return report

    def erase_record(self, reference: str, *, by: Identity | None = None) -> ErasureReport:
        """Erases one record, all versions: afterwards no byte of this node opens to anything of it.

        Args:
            by: an organisation admin; the administrator by default.

        Raises:
            NotFoundError: ``record.unknown``; so does whoever asks for it from now on.
            DeniedError: ``records.held``: a legal hold covers it. ``records.not_permitted``.
        """
        self._require_usable()
        return self._erasing.record(reference, by=by)

    def erase_patient(self, reference: str, *, by: Identity | None = None) -> ErasureReport:
        """Erases a patient: every record, every key, every name; the organisation's own copies of audit events stay.

        Args:
            by: an organisation admin; the administrator by default.

        Raises:
            NotFoundError: ``patient.unknown``.
            DeniedError: ``records.held``: a legal hold covers the patient or a record. ``records.not_permitted``.
        """
        self._require_usable()
        return self._erasing.patient(reference, by=by)

    def prune(
        self,
        policy: PrunePolicy,
        *,
        archive: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        by: Identity | None = None,
    ) -> PruneReport:
        """Lets the bytes of old versions go; their rows, wraps and proofs stay.

        Args:
            archive: a folder that gets their sealed bytes first; without it they are gone for good.
            by: an organisation admin or the gateway; the administrator by default.

        Raises:
            CorruptionError: ``blob.damaged``: what was to be archived is not what was recorded; nothing has gone.
            UnavailableError: ``store.…``, ``chain.read_only``; cut off at any moment, pruning again finishes.
        """
        self._require_usable()
        self._gate.catch_up()
        folder = None if archive is None else Path(archive)
        return self._pruning.prune(policy, archive=folder, dry_run=dry_run, by=by)

    def retrieve(
        self, archive: str | os.PathLike[str], *, record: str | None = None, by: Identity | None = None
    ) -> RetrieveReport:
        """Puts pruned versions back, each checked against the digest that stayed in the log.

        Raises:
            NotFoundError: ``archive.not_there``, ``record.unknown``.
            CorruptionError: ``archive.damaged``.
            InvalidInputError: ``log.other_item``: the archive holds other bytes than went.
        """
        self._require_usable()
        self._gate.catch_up()
        return self._pruning.retrieve(Path(archive), reference=record, by=by)

    def plan_erasure(self, *, record: str | None = None, patient: str | None = None) -> Plan:
        """What an erasure would take; nothing is changed."""
        self._require_usable()
        self._gate.catch_up()
        if (record is None) == (patient is None):
            raise InvalidInputError("erasure.one_target")
        return self._erasing.plan_record(record) if record is not None else self._erasing.plan_patient(patient or "")

    @property
    def erasures(self) -> list[Erasure]:
        """Every erasure of this organisation, in order: what a backup must forget too."""
        self._require_usable()
        return self._eraser.all()

    def _call_records(
        self, method: str, arguments: dict[str, object], packs: tuple[SealedPack, ...], by: Identity | None
    ) -> None:
        self._require_usable()
        self._chain.require_writable()
        self._run(self._chain, "records", method, arguments, by, packs, URGENT)

    def _run(
        self,
        chain: Chain,
        contract: str,
        method: str,
        arguments: object,
        by: Identity | None,
        packs: tuple[SealedPack, ...] = (),
        lane: int = ROUTINE,
    ) -> None:
        key = self.signing_keys.get(self.settings.administrator if by is None else by.id).key
        chain.submit(sign_call(chain, key, contract, method, arguments, packs=packs, lane=lane), packs).result()

    def _record_row(self, record_id: bytes, version: int) -> RecordRow | None:
        return RecordRow.of(self._chain.view("records", "row", {"id": record_id, "version": version}))

    def call(
        self, contract: str, method: str, arguments: object, *, by: Identity | None = None, chain: str | None = None
    ) -> None:
        """Signs and runs one contract call, as the administrator unless told otherwise, and waits for its receipt.

        Args:
            chain: its name; the main chain by default.

        Raises:
            NotFoundError: ``chain.unknown``.
            EhrfastError: the call was refused or failed.
        """
        on = self.chain if chain is None else self.chain_named(chain)
        self._run(on, contract, method, arguments, by)

    def status(self) -> Status:
        """How the node stands at its last published block."""
        self._require_usable()
        self._gate.catch_up()
        published = self._chain.published
        return Status(
            chain_id=self._chain.chain_id,
            height=published.height,
            tree_size=published.tree_size,
            log_root=published.log_root.hex(),
            state_root=published.state_root.hex(),
            records=self._index.record_count,
            bytes_on_disk=bytes_below(self.folder),
            verifier_key=self.verifier_key,
            organisation=self.settings.organisation.hex(),
            organisation_name=self.settings.organisation_name,
            administrator=self.settings.administrator.hex(),
            gateway=self.settings.gateway.hex(),
            clock_behind_ms=self._chain.clock.behind_ms(published.time_ms),
            erasures=len(self._eraser.all()),
            holds=len(self.holds.standing()),
            state_rotation_due=is_due(self._keys, self._chain.chain_id),
            cosignatures=tuple(
                Cosignature(VerifierKey.decode(each.vkey).name, each.checkpoint.tree_size, each.time)
                for each in self._chain.cosigner.cosigned()
            ),
        )

    def add_witness(self, url: str, vkey: str) -> WitnessState:
        """Lets a witness cosign the checkpoints of this node's chains from now on, and asks it once.

        A witness that cannot be reached is asked again later and stops nothing. One that has seen a longer or another
        log under this chain's name ends the writing, here or at the next open.

        Args:
            url: its submission prefix, http or https.
            vkey: its C2SP verifier key; one that is known already moves to the new address.

        Returns:
            How it stands once it has answered, or after some seconds.

        Raises:
            InvalidInputError: ``witness.bad_url``, ``verifier_key.malformed``, ``verifier_key.wrong_algorithm``.
            UnavailableError: ``chain.read_only``.
            CorruptionError: ``log.shorter_than_witnessed``, ``log.not_the_witnessed``.
        """
        self._require_writing()
        address = WitnessAddress(url, vkey)
        others = [each for each in self.settings.witnesses if each.vkey != vkey]
        self.settings = replace(self.settings, witnesses=(*others, address))
        self.settings.save(self.folder)
        for chain in self._chains.values():
            chain.cosigner.add(address)
        for chain in self._chains.values():
            chain.cosigner.wait_answered()
        return next(each for each in self.witnesses() if each.vkey == vkey)

    @staticmethod
    def drop_witness(folder: str | os.PathLike[str], vkey: str) -> None:
        """Takes a witness out of the settings of a node that is not open.

        It may be one that keeps the node from opening: only the operator can tell whether the witness is wrong or the
        folder is an older copy. What it has cosigned stays, and the log must still extend that.

        Raises:
            NotFoundError: ``node.not_there``, ``witness.unknown``.
            ConflictError: ``node.locked``, with the owner's pid.
        """
        path = Path(folder)
        Settings.load(path)
        lock = LockFile.acquire(str(path / LOCK))
        try:
            settings = Settings.load(path)
            others = tuple(each for each in settings.witnesses if each.vkey != vkey)
            if others == settings.witnesses:
                raise NotFoundError("witness.unknown")
            replace(settings, witnesses=others).save(path)
        finally:
            lock.release()

    def rotate_keys(self, what: Literal["root", "atrest", "checkpoint"]) -> None:
        """Changes keys while the node runs; see `rotate_root_key`, `rotate_at_rest` and `rotate_checkpoint_key`.

        Raises:
            InvalidInputError: ``keys.unknown_rotation``.
        """
        match what:
            case "root":
                self.rotate_root_key()
            case "atrest":
                self.rotate_at_rest()
            case "checkpoint":
                self.rotate_checkpoint_key()
            case _:
                raise InvalidInputError("keys.unknown_rotation", {"known": ["atrest", "checkpoint", "root"]})

    def rotate_root_key(self, source: KeySource | None = None) -> RootKeySource:
        """Puts the key store under a new root key; when this returns, the former one opens it no longer.

        A new file is made where the key comes from a file, and the old one destroyed. Another kind of key is read from
        ``EHRFAST_NEW_ROOT_KEY`` or ``EHRFAST_NEW_PASSPHRASE``, and from then on where such keys always are. Cut off at
        any moment, the next open finds which of the two is in force.

        Args:
            source: ``file``, ``environment`` or ``passphrase``; by default the one in use.

        Raises:
            UnavailableError: ``chain.read_only``, ``store.…``.
            NotFoundError: ``root_key.missing``: the new key is not in the environment.
        """
        self._require_writing()
        former = self.settings.root_key
        new = new_source(former, source, generation=self._keys.generation + 1)
        if new.kind == "file":
            make_key_file(self.folder / new.path)
            sync_folder((self.folder / new.path).parent)
        key = read_root_key(new, self.folder, incoming())
        replace(self.settings, next_root_key=new).save(self.folder)
        self._keys.rotate_root(key)
        self.settings = replace(self.settings, root_key=new)
        self.settings.save(self.folder)
        if former.kind == "file":
            destroy_key_file(self.folder / former.path)
        return new

    def rotate_at_rest(self) -> int:
        """New keys for what is written from now on: the key store's, a segment's of every log, the state's.

        The key store is written anew under a new key, and the next block of each chain begins a segment. The state
        database is made anew under a new key when the node closes, or at the next open after a crash; then the old key
        is forgotten. Segments that are there stay under theirs.

        Returns:
            The generation of the key store.

        Raises:
            UnavailableError: ``chain.read_only``, ``store.…``.
        """
        self._require_writing()
        for chain in self._chains.values():
            mark_rotation(self._keys, chain.chain_id, height=chain.published.height)
            chain.segments.roll()
        self._keys.forget([], self._keys.applied_erasure_height)
        return self._keys.generation

    def rotate_checkpoint_key(self) -> str:
        """Signs checkpoints of all chains with a new key from now on.

        The former key states which one follows and from which tree size on, and the new one says so too; these
        statements are `key_history`, to be published. Evidence from before verifies with the key history, or with the
        former key; evidence from now on with the new key, or with the former one and the history. A witness must be
        given the history, see ``ehrfast witness trust``.

        Returns:
            The new verifier key of the main chain.

        Raises:
            UnavailableError: ``chain.read_only``, ``store.…``.
        """
        self._require_writing()
        signer = SigningKey.generate()
        with ExitStack() as changing:
            for chain in self._chains.values():
                chain.require_writable()
                changing.enter_context(chain.changing_signer(signer))
            self._keys.replace(NODE_KIND, CHECKPOINT_KEY, signer.seed())
        return self.verifier_key

    @property
    def key_history(self) -> KeyHistory:
        """The keys that checkpoints of the main chain have been signed with."""
        return self.chain.key_history

    def _require_writing(self) -> None:
        self._require_usable()
        if self._lock is None:
            raise UnavailableError("chain.read_only")

    def trust_clock(self) -> int:
        """The operator's word that this machine's clock is right although it jumped.

        An audit event in the organisation's log says so, in a block of the present time: the next open asks no more.

        Returns:
            Height of that block, or of the one that was newest by then.

        Raises:
            UnavailableError: ``chain.read_only``, ``store.…``.
        """
        self._require_writing()
        for chain in self._chains.values():
            chain.clock.trust()
        self._gate.audit_operation(self.settings.administrator, "clock.trusted")
        return self._chain.published.height

    def witnesses(self) -> list[WitnessState]:
        """The witnesses this node asks, and how each stands to the main chain."""
        self._require_usable()
        return self._chain.cosigner.states()

    def fsck(self, progress: Callable[[int, int], None] | None = None, *, chain: str | None = None) -> FsckReport:
        """Derives every hash, root, signature and state value again from the bytes on disk.

        Args:
            chain: its name; the main chain by default.
        """
        checked = self.chain if chain is None else self.chain_named(chain)
        return checked.fsck(progress, blob_fault=self.blobs.fault)

    def collect_blobs(
        self, *, remove: bool = True, progress: Callable[[int, int], None] | None = None
    ) -> Collected:
        """Removes blobs that no block names and that are older than any write still under way could be.

        Args:
            remove: False only counts them.

        Raises:
            UnavailableError: ``chain.read_only`` when they are to be removed; ``store.io`` …
        """
        self._require_usable()
        if remove:
            self._require_writing()
        return collect_orphans(self._chain, self.blobs, now_ms=wall_ms(), remove=remove, progress=progress)

    @staticmethod
    def configure(
        folder: str | os.PathLike[str],
        *,
        blobs: BlobSettings | None = None,
        placement: Mapping[str, str] | None = None,
        retention_days: int | None = None,
    ) -> Settings:
        """Changes settings of a node that is not open; what is already stored stays where it is.

        Args:
            blobs: where blobs go and are looked for from now on; copy those that are there before.
            placement: FHIR types to ``chain``, ``blob``, or ``default``; others stay as set.
            retention_days: how long the keys of later backups live, 1 to 30.

        Raises:
            NotFoundError: ``node.not_there``.
            ConflictError: ``node.locked``, with the owner's pid.
            InvalidInputError: ``blobs.…``, ``fhir.unknown_type``, ``placement.unknown_place``,
                ``config.bad_retention``.
        """
        path = Path(folder)
        Settings.load(path)
        lock = LockFile.acquire(str(path / LOCK))
        try:
            settings = Settings.load(path)
            if blobs is not None:
                open_blob_store(blobs, path).close()
                settings = replace(settings, blobs=blobs)
            if placement is not None:
                places = {**dict(settings.placement), **placement}
                places = {name: place for name, place in places.items() if place != "default"}
                require_types(placement)
                Placement.of(places)
                settings = replace(settings, placement=tuple(sorted(places.items())))
            if retention_days is not None:
                if not 1 <= retention_days <= MAX_RETENTION_DAYS:
                    raise InvalidInputError("config.bad_retention", {"most": MAX_RETENTION_DAYS})
                settings = replace(settings, retention_days=retention_days)
            settings.save(path)
        finally:
            lock.release()
        return settings

    @staticmethod
    def fsck_folder(
        folder: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
    ) -> FsckReport:
        """The same for a node that is not open, or that refuses to open; beside a running node it leaves the state
        database out.

        Raises:
            NotFoundError, DeniedError, InvalidInputError: there is no node, or its root key is not at hand.
        """
        return check(Path(folder), progress)

    def _enrol_missing_gateways(self) -> None:
        """The first block after block 0: also where a crash came between a chain's founding and it."""
        if self._lock is None:
            return
        for name, chain in self._chains.items():
            if chain.view("identity", "identity", {"id": self.settings.gateway}) is None:
                self._enrol_gateway(name)

    # ── backup ──────────────────────────────────────────────────────────────────────────────────────────────────

    def backup(
        self,
        target: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> BackupReport:
        """Backs this node up at its last durable height, without stopping it; see `backup_folder`."""
        self._require_usable()
        return Node.backup_folder(self.folder, target, progress=progress)

    @staticmethod
    def backup_folder(
        folder: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> BackupReport:
        """Backs a node up, beside a running one too: all chains at one moment, their keys, the blobs of the folder.

        What the target holds already is not copied again. Whoever has the target and the backup root key, see
        ``ehrfast keys export``, can restore it; whoever has the target alone reads nothing.

        Args:
            target: a folder on another disk.
            progress: called with (bytes done, bytes of the block logs and blobs).

        Raises:
            ConflictError: ``backup.not_a_target``, ``backup.other_node``, ``backup.ahead``, ``node.locked``.
            DeniedError: ``keys.wrong_root_key``: the target belongs to another node.
            UnavailableError: the target cannot be written.
        """
        with Node.open(folder, read_only=True) as frozen:
            keys, _ = open_keys(frozen.folder, frozen.settings, read_only=True)
            try:
                return back_up(frozen, keys, target, progress)
            finally:
                keys.close()

    @staticmethod
    def backup_root_key(folder: str | os.PathLike[str]) -> bytes:
        """The key that opens the backups of a node, beside a running one too.

        Raises:
            NotFoundError: ``node.not_there``, ``keys.missing``.
        """
        path = Path(folder)
        keys, _ = open_keys(path, Settings.load(path), read_only=True)
        try:
            return backup_root_key(keys)
        finally:
            keys.close()

    def list_erasures(
        self, target: str | os.PathLike[str], erasures: Sequence[ListedErasure]
    ) -> int:
        """Appends erasures to a target's erased list, signed, so that no restore brings back what they name.

        Returns:
            Unix ms until which the keys of the backups made before can still open it, 0 when there are none.
        """
        self._require_usable()
        return list_erasures(self, self._keys, target, erasures)

    @staticmethod
    def restore(
        target: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        backup_root: bytes,
        *,
        max_height: int | None = None,
        vkey: str | None = None,
        witnesses: Iterable[WitnessAddress] = (),
        checkpoint: bytes | None = None,
        root_key: RootKeySource | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RestoreReport:
        """Makes a node out of a backup, in a new or empty folder, and asks the witnesses whether it is the newest.

        Every part is checked by its digest, every root derived again; what was erased since does not come back. The
        node opens read-only, and for writing only once a witness has cosigned its head or the operator has shown the
        newest checkpoint.

        Args:
            backup_root: as `ehrfast.keys.backup_key` reads it from shares or a sealed file.
            max_height: the newest backup of at most that height of the main chain; by default the newest of all.
            vkey: the verifier key it must be of.
            witnesses: asked besides those in the backed up settings.
            checkpoint: the newest one that the operator knows.
            root_key: where the new folder's root key comes from, as for `create`.

        Raises:
            NotFoundError: ``backup.not_there``, ``backup.none``, ``backup.missing_part`` with its name.
            DeniedError: ``keys.wrong_root_key``.
            CorruptionError: ``backup.part_damaged`` with its name, ``backup.wrong_root``,
                ``log.shorter_than_witnessed``: the backup is older than what a witness has seen.
            ConflictError: ``node.exists``, ``checkpoint.not_the_head``.
        """
        return restore(
            os.fspath(target),
            Path(folder),
            backup_root,
            max_height=max_height,
            vkey=vkey,
            witnesses=tuple(witnesses),
            checkpoint=checkpoint,
            root_key=root_key,
            progress=progress,
        )

    @staticmethod
    def allow_writing(
        folder: str | os.PathLike[str],
        *,
        checkpoint: bytes | None = None,
        witnesses: Iterable[WitnessAddress] = (),
    ) -> bool:
        """Lets a restored node write again, once a checkpoint from outside matches its head.

        Args:
            checkpoint: the newest one that the operator knows; it must be the head.
            witnesses: asked to cosign the head, besides those in the settings.

        Returns:
            Whether it may; False when no witness answered and no checkpoint was given.

        Raises:
            CorruptionError, ConflictError, NotFoundError: as for `restore`.
        """
        path = Path(folder)
        with Node.open(path, read_only=True) as node:
            chains = node.chains.values()
            heads = [Head(each.published.note, _vkey(each), each.log.prove_consistency) for each in chains]
            if not matched(heads, (*node.settings.witnesses, *witnesses), checkpoint)[0]:
                return False
        unmark(path)
        return True

    def _enrol_gateway(self, chain: str) -> None:
        gateway = self.signing_keys.get(self.settings.gateway)
        self.call("identity", "enrol", enrolment(gateway), chain=chain)

    def _posted_epoch(self, subject: bytes, record_class: str) -> bytes | None:
        arguments = {"subject": subject, "custodian": self.settings.organisation, "class_": record_class}
        row = self._chain.view("records", "epoch", arguments)
        return row[0] if isinstance(row, tuple) else None

    def _last_sequence(self, public_key: bytes) -> int:
        last = self._chain.view("access", "sequence", {"sender": public_key})
        return last if isinstance(last, int) else 0

    def _require_usable(self) -> None:
        if os.getpid() != self._pid:
            raise UnavailableError("node.forked")
        if self._closed:
            raise UnavailableError("node.closed")


def _vkey(chain: Chain) -> str:
    return verifier_key(chain.chain_id, chain.signer_public_key)


_OPEN: Final[WeakSet[Node]] = WeakSet()


def _leave_locks_to_parent() -> None:
    """A forked child closes its copies of the locks' descriptors, so that a lock ends with the process that took it."""
    for node in _OPEN:
        if node._lock is not None:
            node._lock.release()


os.register_at_fork(after_in_child=_leave_locks_to_parent)
