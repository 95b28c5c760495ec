"""One organisation's node: key store, chains, gate and sessions over one folder. The embedded API hangs off it.

One process owns a folder for writing; another may open it read-only. After a fork it must be opened anew.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal
from weakref import WeakSet

from ehrfast._core import KeyStore, LockFile, SealedPack, SigningKey, StateDb, blake3_digest, random_bytes
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
from ehrfast.backup.erased import append_erasures
from ehrfast.backup.make import BackupReport, Source, make_backup
from ehrfast.backup.manifest import list_manifests, read_manifest
from ehrfast.backup.restore import BLOBS, RestorePlan, plan_restore, restore_blobs, restore_chain, restore_keys
from ehrfast.backup.target import BackupTarget, open_target
from ehrfast.backup.unproven import Head, ask_witnesses, mark, match_checkpoint, require_unmarked, unmark
from ehrfast.chain.chain import Chain
from ehrfast.chain.clock import wall_ms
from ehrfast.chain.cosign import WitnessState
from ehrfast.chain.fsck import KEY_ENTRIES, Erased, Fault, FsckReport, fsck, key_store_fault, slot_fault
from ehrfast.chain.key_history import FILE as KEY_HISTORY
from ehrfast.chain.key_history import load_history
from ehrfast.chain.state_key import FOLDER as STATE_FOLDER
from ehrfast.chain.state_key import is_due, mark_rotation, rotate, state_key
from ehrfast.consensus import solo as _solo  # registers the engine
from ehrfast.consensus.lanes import URGENT
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from ehrfast.keys.backup_key import BACKUP_KIND, ROOT, backup_root_key
from ehrfast.keys.root_key import (
    KeySource,
    RootKeySource,
    choose_source,
    destroy_key_file,
    incoming,
    make_key_file,
    new_source,
    read_root_key,
)
from ehrfast.keys.signing import HeldIdentity, SigningKeys
from ehrfast.keys.subjects import Subjects
from ehrfast.model.ask_witness import WitnessAddress
from ehrfast.model.checkpoint import VerifierKey, verifier_key
from ehrfast.model.durable import sync_folder, unavailable, write_synced
from ehrfast.model.genesis import Genesis, Organisation, open_genesis, sign_genesis
from ehrfast.model.identity import ROLES, Identity, parse_id
from ehrfast.model.key_history import KeyHistory
from ehrfast.model.record import RecordRow
from ehrfast.records.blobs import LOCAL_BLOBS, BlobSettings, open_blob_store
from ehrfast.records.index.memory import RecordIndex
from ehrfast.records.placement import Placement, require_types

FORMAT: Final = 2
_UNCHECKED_FORMAT: Final = 1
"""Settings that carried no check yet."""
MAIN: Final = "main"
NODE_KIND: Final = "node"
CHECKPOINT_KEY: Final = b"checkpoint"
_SETTINGS: Final = "node.json"
CUSTODIAL: Final = 1
MAX_RETENTION_DAYS: Final = 30
"""How long the keys of a backup may live: an erasure is complete in all backups after that."""
_CHAINS: Final = "chains"
_UNFINISHED: Final = ".new"
_ENGINE: Final = _solo.SoloEngine.name


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node writes down in the clear; ids are random, nothing here is about a patient."""

    organisation_name: str
    organisation: bytes
    administrator: bytes
    gateway: bytes
    root_key: RootKeySource
    main_chain: str
    witnesses: tuple[WitnessAddress, ...] = ()
    blobs: BlobSettings = LOCAL_BLOBS
    placement: tuple[tuple[str, str], ...] = ()
    retention_days: int = MAX_RETENTION_DAYS
    next_root_key: RootKeySource | None = None
    """While the root key changes: the key store is under this one or still under the other."""

    def save(self, folder: Path) -> None:
        """Writes the settings, synced, in one step."""
        value: dict[str, object] = {
            "format": FORMAT,
            "organisation_name": self.organisation_name,
            "organisation": self.organisation.hex(),
            "administrator": self.administrator.hex(),
            "gateway": self.gateway.hex(),
            "main_chain": self.main_chain,
            "root_key": self.root_key.as_dict(),
            "witnesses": [{"url": each.url, "vkey": each.vkey} for each in self.witnesses],
            "blobs": self.blobs.as_dict(),
            "placement": dict(self.placement),
            "retention_days": self.retention_days,
        }
        if self.next_root_key is not None:
            value["next_root_key"] = self.next_root_key.as_dict()
        write_synced(folder / _SETTINGS, _render({**value, "check": _check_of(value)}).encode(), 0o644)

    @staticmethod
    def load(folder: Path) -> Settings:
        """Reads them; settings written before nodes had several chains name none, and their first one is meant.

        Raises:
            NotFoundError: ``node.not_there``.
            CorruptionError: ``node.settings_damaged``: they are not what ehrfast wrote.
        """
        try:
            text = (folder / _SETTINGS).read_text(encoding="utf-8")
            value = json.loads(text)
            checked = value["format"] == FORMAT and _render(value) == text and value.pop("check") == _check_of(value)
            if not checked and value["format"] != _UNCHECKED_FORMAT:
                raise ValueError
            following = value.get("next_root_key")
            main = value["main_chain"] if "main_chain" in value else _chain_names(folder)[0]
            if not isinstance(main, str):
                raise TypeError
            return Settings(
                organisation_name=value["organisation_name"],
                organisation=bytes.fromhex(value["organisation"]),
                administrator=bytes.fromhex(value["administrator"]),
                gateway=bytes.fromhex(value["gateway"]),
                root_key=RootKeySource.of(value["root_key"]),
                next_root_key=None if following is None else RootKeySource.of(following),
                main_chain=main,
                witnesses=tuple(WitnessAddress(each["url"], each["vkey"]) for each in value.get("witnesses", ())),
                blobs=BlobSettings.of(value["blobs"]) if "blobs" in value else LOCAL_BLOBS,
                placement=tuple(sorted(value.get("placement", {}).items())),
                retention_days=_retention(value.get("retention_days", MAX_RETENTION_DAYS)),
            )
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("node.not_there", {"folder": str(folder)}) from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise CorruptionError("node.settings_damaged", {"file": _SETTINGS}) from None


@dataclass(frozen=True, slots=True)
class Cosignature:
    """The newest checkpoint that a witness has cosigned.

    Args:
        witness: its name.
        tree_size: of that checkpoint.
        time: by the witness's clock.
    """

    witness: str
    tree_size: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """How a node stands."""

    chain_id: str
    height: int
    tree_size: int
    log_root: str
    state_root: str
    records: int
    bytes_on_disk: int
    verifier_key: str
    organisation: str
    organisation_name: str
    administrator: str
    gateway: str
    clock_behind_ms: int
    erasures: int
    holds: int
    state_rotation_due: bool
    cosignatures: tuple[Cosignature, ...]


class Identities:
    """The identities whose signing keys this node holds."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def enrol(self, name: str, *, role: str, patient: str | None = None) -> Identity:
        """Enrols somebody at this organisation, their signing key in its custody.

        Args:
            name: kept sealed in the key store, never on the chain.
            role: one of the closed list of roles.
            patient: for the role ``patient``, the reference of their Patient resource.

        Raises:
            InvalidInputError: ``role.unknown``, or ``identity.patient_needed``.
        """
        if role not in ROLES:
            raise InvalidInputError("role.unknown", {"known": sorted(ROLES)})
        if (role == "patient") != (patient is not None):
            raise InvalidInputError("identity.patient_needed")
        self._node.chain.require_writable()  # before a key is kept that the chain would never hear of
        subject = None if patient is None else self._node.subjects.of(patient).id
        key = SigningKey.generate()
        held = HeldIdentity(random_bytes(16), role, key, name)
        self._node.signing_keys.put(held)
        arguments = {
            "identity": held.id,
            "key": key.public_key,
            "custody": CUSTODIAL,
            "role": role,
            "from_ms": None,
            "until_ms": None,
            "subject": subject,
        }
        self._node.call("identity", "enrol", arguments)
        return Identity(held.id, self._node.settings.organisation)

    def get(self, identity: str) -> Identity:
        """The identity with that id (32 hex digits)."""
        value = parse_id(identity, code="identity.malformed")
        return Identity(value, self._node.settings.organisation)

    def all(self) -> list[HeldIdentity]:
        """Every identity held here, by id."""
        return self._node.signing_keys.all()

    @property
    def gateway(self) -> Identity:
        """The organisation's machine: it may write, not read."""
        return Identity(self._node.settings.gateway, self._node.settings.organisation)

    @property
    def administrator(self) -> Identity:
        """Who enrols others."""
        return Identity(self._node.settings.administrator, self._node.settings.organisation)


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
        self._eraser = Eraser(chain, keys, self.subjects, self.signing_keys, settings.organisation, self.blobs.delete)
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
        self._pruning = Pruning(chain, self._index, self.holds, self._record_row, self._call_records)
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
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConflictError("node.exists", {"folder": str(path)})
            lock = LockFile.acquire(str(path / "lock"))
        except OSError as error:
            raise unavailable(error) from None
        try:
            Node._make(path, organisation, chain, root_key)
        except BaseException as error:
            _remove_contents(path)
            if isinstance(error, OSError) and not isinstance(error, EhrfastError):
                raise unavailable(error) from None
            raise
        finally:
            lock.release()
        try:
            return Node.open(path)
        except BaseException:
            _remove_contents(path)
            raise

    @staticmethod
    def _make(path: Path, organisation: str, chain: str, root_key: RootKeySource | None) -> None:
        """Keys, genesis, block 0 and, last of all, the settings that make the folder a node."""
        source = root_key or choose_source()
        if source.kind == "file" and not (path / source.path).exists():
            make_key_file(path / source.path)
        keys = KeyStore.create(str(path / "keys"), read_root_key(source, path))
        signing_keys = SigningKeys(keys)
        administrator = HeldIdentity(random_bytes(16), "organisation_admin", SigningKey.generate(), "administrator")
        gateway = HeldIdentity(random_bytes(16), "gateway", SigningKey.generate(), "gateway")
        signer = SigningKey.generate()
        signing_keys.put(administrator)
        signing_keys.put(gateway)
        keys.put([(NODE_KIND, CHECKPOINT_KEY, signer.seed()), (BACKUP_KIND, ROOT, random_bytes(32))])
        settings = Settings(organisation, random_bytes(16), administrator.id, gateway.id, source, chain)
        _found_chain(path, chain, settings, administrator=administrator, keys=keys, signer=signer)
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
        lock = None if read_only else LockFile.acquire(str(path / "lock"))
        keys: KeyStore | None = None
        chains: dict[str, Chain] = {}
        try:
            keys, settings = _open_keys(path, settings, read_only=read_only)
            signer = _checkpoint_key(keys)
            names = _chain_names(path)
            if settings.main_chain not in names:
                raise NotFoundError("chain.unknown", {"chain": settings.main_chain})
            if not read_only:
                for name in names:
                    rotate(path / _CHAINS / name, keys, _chain_id(path / _CHAINS / name))
            for name in names:
                chains[name] = Chain.open(
                    path / _CHAINS / name,
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
        self._require_usable()
        if self._lock is None:
            raise UnavailableError("chain.read_only")
        if name in self._chains:
            raise ConflictError("chain.exists", {"chain": name})
        administrator = self.signing_keys.get(self.settings.administrator)
        signer = _checkpoint_key(self._keys)
        _found_chain(self.folder, name, self.settings, administrator=administrator, keys=self._keys, signer=signer)
        chain = Chain.open(
            self.folder / _CHAINS / name,
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
        return verifier_key(self._chain.chain_id, self._chain.signer_public_key)

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
        chain = self.chain
        key = self.signing_keys.get(self.settings.administrator if by is None else by.id).key
        chain.require_writable()
        chain.submit(sign_call(chain, key, "records", method, arguments, packs=packs, lane=URGENT), packs).result()

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
        identity = self.settings.administrator if by is None else by.id
        key = self.signing_keys.get(identity).key
        on.submit(sign_call(on, key, contract, method, arguments)).result()

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
            bytes_on_disk=_bytes_below(self.folder),
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
        self._require_usable()
        if self._lock is None:
            raise UnavailableError("chain.read_only")
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
        lock = LockFile.acquire(str(path / "lock"))
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
        if remove and self._lock is None:
            raise UnavailableError("chain.read_only")
        return collect_orphans(self._chain, self.blobs, now_ms=wall_ms(), remove=remove, progress=progress)

    @staticmethod
    def configure(
        folder: str | os.PathLike[str],
        *,
        blobs: BlobSettings | None = None,
        placement: Mapping[str, str] | None = None,
    ) -> Settings:
        """Changes settings of a node that is not open; what is already stored stays where it is.

        Args:
            blobs: where blobs go and are looked for from now on; copy those that are there before.
            placement: FHIR types to ``chain``, ``blob``, or ``default``; others stay as set.

        Raises:
            NotFoundError: ``node.not_there``.
            ConflictError: ``node.locked``, with the owner's pid.
            InvalidInputError: ``blobs.…``, ``fhir.unknown_type``, ``placement.unknown_place``.
        """
        path = Path(folder)
        Settings.load(path)
        lock = LockFile.acquire(str(path / "lock"))
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
        path = Path(folder)
        try:
            settings = Settings.load(path)
        except CorruptionError as error:
            return FsckReport(0, 0, (Fault(_SETTINGS, 0, error.code, None),))
        lock = _lock_if_free(path)
        try:
            blobs = open_blob_store(settings.blobs, path)
            keys, faults = _fsck_keys(path, settings)
            reports = [] if keys is None else [
                _fsck_chain(
                    path / _CHAINS / name,
                    keys,
                    settings.organisation,
                    progress,
                    alone=lock is not None,
                    blob_fault=blobs.fault,
                )
                for name in _chain_names(path)
            ]
            if keys is not None:
                keys.close()
        finally:
            if lock is not None:
                lock.release()
        return FsckReport(
            sum(report.blocks for report in reports),
            sum(report.transactions for report in reports),
            (*faults, *(fault for report in reports for fault in report.faults)),
            sum((report.erased for report in reports), start=Erased()),
        )

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
        path = Path(folder)
        with Node.open(path, read_only=True) as frozen:
            settings = frozen.settings
            keys, _ = _open_keys(path, settings, read_only=True)
            try:
                opened = open_target(os.fspath(target), backup_root_key(keys), create=True)
                try:
                    if _checkpoint_key(keys).public_key != frozen.chain.signer_public_key:
                        raise UnavailableError("backup.keys_changing")  # between the two openings; once more does it
                    source = Source(
                        settings=(path / _SETTINGS).read_bytes(),
                        keys=keys,
                        chains=frozen.chains,
                        main=settings.main_chain,
                        signer=_checkpoint_key(keys),
                        retention_days=settings.retention_days,
                        now_ms=wall_ms(),
                        blobs=_blobs_below(path),
                    )
                    listed = [_listed(frozen.chain.chain_id, each) for each in frozen.erasures]
                    append_erasures(opened, listed, source.signer, _former_keys(frozen))
                    return make_backup(source, opened, progress)
                finally:
                    opened.close()
            except OSError as error:
                if isinstance(error, EhrfastError):
                    raise
                raise unavailable(error) from None
            finally:
                keys.close()

    @staticmethod
    def backup_root_key(folder: str | os.PathLike[str]) -> bytes:
        """The key that opens the backups of a node, beside a running one too.

        Raises:
            NotFoundError: ``node.not_there``, ``keys.missing``.
        """
        path = Path(folder)
        settings = Settings.load(path)
        keys = KeyStore.open(str(path / "keys"), read_root_key(settings.root_key, path), read_only=True)
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
        opened = open_target(os.fspath(target), backup_root_key(self._keys), create=True)
        try:
            append_erasures(opened, erasures, _checkpoint_key(self._keys), _former_keys(self))
            keys = opened.keys()
            held = [read_manifest(opened, each, keys)[0] for each in list_manifests(opened) if each.id in keys]
            return max((each.expires_ms for each in held), default=0)
        finally:
            opened.close()

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
        path = Path(folder)
        opened = open_target(os.fspath(target), backup_root, create=False)
        try:
            plan = plan_restore(opened, max_height=max_height, vkey=vkey)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConflictError("node.exists", {"folder": str(path)})
            lock = LockFile.acquire(str(path / "lock"))
            try:
                return _restore_into(
                    path,
                    plan,
                    opened,
                    backup_root,
                    witnesses=tuple(witnesses),
                    checkpoint=checkpoint,
                    root_key=root_key,
                    progress=progress,
                )
            except BaseException as error:
                _remove_contents(path)
                if isinstance(error, OSError) and not isinstance(error, EhrfastError):
                    raise unavailable(error) from None
                raise
            finally:
                lock.release()
        finally:
            opened.close()

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
            heads = [
                Head(each.published.note, node._vkey(each), each.log.prove_consistency) for each in node.chains.values()
            ]
            if not _matched(heads, node.settings, tuple(witnesses), checkpoint)[0]:
                return False
        unmark(path)
        return True

    def _vkey(self, chain: Chain) -> str:
        return verifier_key(chain.chain_id, chain.signer_public_key)

    def _enrol_gateway(self, chain: str) -> None:
        gateway = self.signing_keys.get(self.settings.gateway)
        enrolment = {
            "identity": gateway.id,
            "key": gateway.key.public_key,
            "custody": CUSTODIAL,
            "role": "gateway",
            "from_ms": None,
            "until_ms": None,
            "subject": None,
        }
        self.call("identity", "enrol", enrolment, chain=chain)

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


def _render(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, indent=2) + "\n"


def _check_of(settings: Mapping[str, object]) -> str:
    """Finds a bit that turned, not a hand that meant it: whoever can write the folder can write this too."""
    return blake3_digest(_render(settings).encode())[:16].hex()


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore made.

    Args:
        sequence: of the backup.
        log_root, state_root: of the main chain, derived again from the restored bytes.
        replayed_blocks: of the main chain, beyond its snapshot.
        blobs: how many came back.
        erased: how many keys were left out as erased.
        witnesses: what each witness said: None where it cosigned the head, else a code.
        writable: whether a checkpoint from outside matched.
    """

    sequence: int
    time_ms: int
    chain_id: str
    height: int
    tree_size: int
    log_root: str
    state_root: str
    verifier_key: str
    replayed_blocks: int
    blobs: int
    erased: int
    witnesses: Mapping[str, str | None]
    writable: bool


def _restore_into(
    path: Path,
    plan: RestorePlan,
    target: BackupTarget,
    backup_root: bytes,
    *,
    witnesses: tuple[WitnessAddress, ...],
    checkpoint: bytes | None,
    root_key: RootKeySource | None,
    progress: Callable[[int, int], None] | None,
) -> RestoreReport:
    manifest = plan.manifest
    source = root_key or choose_source()
    if source.kind == "file" and not (path / source.path).exists():
        make_key_file(path / source.path)
    keys = restore_keys(plan, target, path / "keys", read_root_key(source, path), backup_root)
    try:
        restored = [
            restore_chain(plan, each, target, path / _CHAINS / each.name, keys, progress) for each in manifest.chains
        ]
    finally:
        keys.close()
    blobs = restore_blobs(plan, target, path)
    (path / _SETTINGS).write_bytes(manifest.settings)
    settings = replace(Settings.load(path), root_key=source, next_root_key=None)
    (path / _SETTINGS).unlink()
    heads = [Head(each.note, verifier_key(each.chain_id, plan.signer), each.log.prove_consistency) for each in restored]
    writable, said = _matched(heads, settings, witnesses, checkpoint)
    if not writable:
        mark(path, manifest.sequence)
    settings.save(path)
    sync_folder(path)
    main = next(each for each in restored if each.name == manifest.main)
    return RestoreReport(
        sequence=manifest.sequence,
        time_ms=manifest.time_ms,
        chain_id=main.chain_id,
        height=main.height,
        tree_size=main.tree_size,
        log_root=main.log_root.hex(),
        state_root=main.state_root.hex(),
        verifier_key=plan.verifier_key,
        replayed_blocks=main.height - main.replayed_from,
        blobs=blobs,
        erased=sum(len(each.keys) + len(each.items) for each in plan.erasures),
        witnesses=said,
        writable=writable,
    )


def _matched(
    heads: Sequence[Head],
    settings: Settings,
    witnesses: tuple[WitnessAddress, ...],
    checkpoint: bytes | None,
) -> tuple[bool, dict[str, str | None]]:
    """Whether something from outside says that nothing newer exists, and what each witness said."""
    known = {each.vkey: each for each in (*settings.witnesses, *witnesses)}
    said = ask_witnesses(heads, known.values())
    if checkpoint is not None:
        match_checkpoint(heads, checkpoint)
    return checkpoint is not None or any(code is None for code in said.values()), said


def _listed(chain_id: str, erasure: Erasure) -> ListedErasure:
    return ListedErasure(chain_id, erasure.height, erasure.time_ms, ((erasure.kind, erasure.target),))


def _blobs_below(folder: Path) -> list[tuple[str, int, Callable[[int, int], bytes]]]:
    """The blobs of the node's own store; names of unfinished ones begin with a dot."""
    found: list[tuple[str, int, Callable[[int, int], bytes]]] = []
    for path in sorted((folder / BLOBS).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found.append((str(path.relative_to(folder)), path.stat().st_size, partial(_read_bytes, path)))
    return found


def _read_bytes(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)


def _retention(days: object) -> int:
    if not isinstance(days, int) or not 1 <= days <= MAX_RETENTION_DAYS:
        raise ValueError
    return days


def _remove_contents(folder: Path) -> None:
    """Takes back a node that could not be made; the folder was empty before."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_OPEN: Final[WeakSet[Node]] = WeakSet()


def _leave_locks_to_parent() -> None:
    """A forked child closes its copies of the locks' descriptors, so that a lock ends with the process that took it."""
    for node in _OPEN:
        if node._lock is not None:
            node._lock.release()


os.register_at_fork(after_in_child=_leave_locks_to_parent)


def _lock_if_free(path: Path) -> LockFile | None:
    try:
        return LockFile.acquire(str(path / "lock"))
    except ConflictError:
        return None


def _chain_id(folder: Path) -> str:
    return open_genesis((folder / "genesis").read_bytes()).chain_id


def _open_keys(path: Path, settings: Settings, *, read_only: bool) -> tuple[KeyStore, Settings]:
    """The key store, and the settings without a change of root key: done, or not, as the key store has it."""
    refused: EhrfastError | None = None
    sources = [settings.root_key, settings.next_root_key]
    for source in [each for each in sources if each is not None]:
        try:
            keys = KeyStore.open(str(path / "keys"), read_root_key(source, path), read_only=read_only)
        except (DeniedError, NotFoundError, InvalidInputError) as error:
            refused = refused or error
            continue
        if settings.next_root_key is None or read_only:
            return keys, settings
        settled = replace(settings, root_key=source, next_root_key=None)
        settled.save(path)
        for other in sources:
            if other is not None and other.kind == "file" and other != source:
                destroy_key_file(path / other.path)
        return keys, settled
    raise refused or NotFoundError("root_key.missing")


def _fsck_keys(path: Path, settings: Settings) -> tuple[KeyStore | None, list[Fault]]:
    """The key store for reading, None where it does not open, and what is wrong with its files and the root key's."""
    source = settings.root_key
    try:
        keys, _ = _open_keys(path, settings, read_only=True)
    except CorruptionError as error:
        return None, [key_store_fault(error)]
    except (InvalidInputError, DeniedError) as error:
        if source.kind != "file" or error.code not in ("root_key.malformed", "keys.wrong_root_key"):
            raise
        return None, [Fault(source.path, 0, error.code, None)]
    return keys, [] if keys.damaged_copies == 0 else [slot_fault(keys)]


def _fsck_chain(
    folder: Path,
    keys: KeyStore,
    custodian: bytes,
    progress: Callable[[int, int], None] | None,
    *,
    alone: bool,
    blob_fault: Callable[[bytes], str | None],
) -> FsckReport:
    try:
        genesis = open_genesis((folder / "genesis").read_bytes())
        signer = _checkpoint_key(keys)
    except (EhrfastError, FileNotFoundError):
        return fsck(folder, keys=keys, history=None, custodian=custodian, progress=progress)
    state, faults = _open_for_fsck(folder, keys, genesis.chain_id) if alone else (None, [])
    try:
        history: KeyHistory | None = None
        try:
            history = load_history(folder, genesis.chain_id, signer.public_key)
        except CorruptionError as error:
            faults = [*faults, Fault(KEY_HISTORY, 0, error.code, None)]
        found = fsck(
            folder,
            keys=keys,
            history=history,
            state=state,
            custodian=custodian,
            blob_fault=blob_fault,
            progress=progress,
        )
        return replace(found, faults=(*found.faults, *faults))
    finally:
        if state is not None:
            state.close()


def _open_for_fsck(folder: Path, keys: KeyStore, chain_id: str) -> tuple[StateDb | None, list[Fault]]:
    try:
        key = state_key(keys, chain_id)
    except CorruptionError as error:
        return None, [Fault(KEY_ENTRIES, 0, error.code, None)]
    if is_due(keys, chain_id):  # made anew at the next open: nothing would be learnt from it
        return None, []
    try:
        return StateDb.open(str(folder / STATE_FOLDER), key), []
    except (CorruptionError, UnavailableError) as error:
        return None, [Fault("state", 0, error.code, None)]


def _bytes_below(folder: Path) -> int:
    files: Iterable[Path] = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)


def _found_chain(
    folder: Path, name: str, settings: Settings, *, administrator: HeldIdentity, keys: KeyStore, signer: SigningKey
) -> None:
    """Writes a chain beside the others in one step: a crash leaves a folder that no chain can be called."""
    runtime = Runtime(Registry.default())
    admins = ((administrator.id, administrator.key.public_key),)
    genesis = Genesis(
        name=name,
        time_ms=wall_ms(),
        engine=_ENGINE,
        organisations=(Organisation(settings.organisation, admins, 1),),
        governors=((administrator.key.public_key,), 1),
        contract_set_hash=runtime.registry.contract_set_hash(),
        python_minor=sys.version_info.minor,
    )
    signed = sign_genesis(genesis, [administrator.key])
    unfinished = folder / _CHAINS / (name + _UNFINISHED)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    Chain.create(unfinished, signed, keys=keys, signer=signer, runtime=runtime)
    unfinished.rename(folder / _CHAINS / name)
    sync_folder(folder / _CHAINS)


def _chain_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / _CHAINS).iterdir() if path.is_dir() and path.suffix != _UNFINISHED)


def _former_keys(node: Node) -> frozenset[bytes]:
    return frozenset(each.public_key for each in node.key_history.keys)


def _checkpoint_key(keys: KeyStore) -> SigningKey:
    seed = keys.get(NODE_KIND, CHECKPOINT_KEY)
    if seed is None:
        raise CorruptionError("keys.missing", {"kind": NODE_KIND})
    return SigningKey.from_seed(seed)
