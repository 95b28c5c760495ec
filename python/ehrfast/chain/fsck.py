"""fsck: every hash, root, signature and state value of a chain derived again from the bytes on disk.

Reads the folder, not an open chain, so it also works where a chain refuses to open. Goes on after a fault: once a
frame is missing, later ones are checked for themselves, and what would only follow from the gap is not reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ehrfast._core import (
    CheckpointFile,
    Frame,
    KeyStore,
    Log,
    SegmentLog,
    StateDb,
    Transaction,
    Trie,
    admit_transactions,
    blake3_digest,
    cbor_decode,
    state_path,
    transaction_leaf,
)
from ehrfast._core import Fault as FrameFault
from ehrfast.chain.admit import MAX_RECORDS_TRANSACTION_BYTES
from ehrfast.chain.cosign import FILE as COSIGNATURES
from ehrfast.chain.cosign import load_cosigned
from ehrfast.chain.key_history import FILE as KEY_HISTORY
from ehrfast.chain.recover import head_of
from ehrfast.errors import CorruptionError, EhrfastError
from ehrfast.keys.signing import IDENTITY_KIND
from ehrfast.keys.subjects import SUBJECT_KIND
from ehrfast.model.checkpoint import Checkpoint
from ehrfast.model.genesis import Genesis, open_genesis
from ehrfast.model.key_history import KeyHistory
from ehrfast.model.receipt import Receipt

KEY_SLOTS: Final = "keys/keys.slots"
KEY_ENTRIES: Final = "keys/keys.entries"
_SLOT_BYTES: Final = 4096
_CUSTODIAL: Final = 1
_CUSTODY_ARGUMENT: Final = 3
_SUBJECT_ARGUMENT: Final = 7
_EPOCHS_ARGUMENT: Final = {("records", "put"): 2, ("records", "post_epochs"): 1, ("access", "append"): 3}
"""Contract and method to the number of the argument that lists the class keys coming into force."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One place that is not what was written."""

    file: str
    offset: int
    kind: str
    height: int | None


@dataclass(frozen=True, slots=True)
class Erased:
    """How much of a log is digests, erased or pruned; what lies outside it is not among them. Wraps of which some went
    count."""

    transactions: int = 0
    values: int = 0
    items: int = 0
    wraps: int = 0

    def __add__(self, other: Erased) -> Erased:
        return Erased(
            self.transactions + other.transactions,
            self.values + other.values,
            self.items + other.items,
            self.wraps + other.wraps,
        )


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check found.

    Args:
        pruned: versions that the chain says are pruned; their items are among the erased ones.
        blobs: items outside the log that must be there.
    """

    blocks: int
    transactions: int
    faults: tuple[Fault, ...]
    erased: Erased = Erased()
    pruned: int = 0
    blobs: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


def key_store_fault(error: CorruptionError) -> Fault:
    """Where a key store that does not open is damaged."""
    if error.code == "keys.slots_damaged":
        return Fault(KEY_SLOTS, 0, error.code, None)
    offset = error.details.get("offset", 0)
    return Fault(KEY_ENTRIES, offset if isinstance(offset, int) else 0, error.code, None)


def slot_fault(keys: KeyStore) -> Fault:
    """Some of the four copies of the store key do not read; the next open for writing writes them again."""
    return Fault(KEY_SLOTS, keys.generation % 2 * _SLOT_BYTES, "keys.slot_copy_damaged", None)


def fsck(
    folder: Path,
    *,
    keys: KeyStore,
    history: KeyHistory | None,
    state: StateDb | None = None,
    custodian: bytes | None = None,
    max_height: int | None = None,
    blob_fault: Callable[[bytes], str | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FsckReport:
    """Checks one chain.

    Args:
        folder: the chain's own folder.
        keys: the node's key store.
        history: the keys the chain's checkpoints have been signed with; None where they are not known.
        state: its state database, when nobody else has it open.
        custodian: the organisation whose keys must all be in the key store, by default none's.
        max_height: the last block to look at; a writer may be appending beyond it.
        blob_fault: tells what is wrong with the blob of a digest, or None; without it blobs are not looked at.
        progress: called with (bytes read, bytes there) after each block.
    """
    checker = _Checker(folder, history, keys, custodian)
    checker.blob_fault = blob_fault
    genesis = checker.genesis()
    if genesis is not None:
        total = sum(file.stat().st_size for file in (folder / "log").iterdir())
        done = 0
        for file, offset, found in SegmentLog.scan(str(folder / "log"), genesis.chain_id, keys):
            if max_height is not None and found.height is not None and found.height > max_height:
                break
            checker.take(file, offset, found)
            done = max(done, offset)
            if progress is not None:
                progress(done, total)
        checker.finish(state, bounded=max_height is not None)
    blobs = checker.blobs()
    return FsckReport(
        blocks=checker.blocks,
        transactions=checker.transactions,
        faults=tuple(checker.faults),
        erased=replace(checker.erased, items=checker.items_gone()),
        pruned=len(checker.pruned),
        blobs=len(blobs),
    )


_BLOB = 1
_WENT = 2 | 4
_PRUNINGS: Final = ("prune", "restore")


class _Checker:
    def __init__(self, folder: Path, history: KeyHistory | None, keys: KeyStore, custodian: bytes | None) -> None:
        self.blob_fault: Callable[[bytes], str | None] | None = None
        self._blobs: dict[bytes, tuple[bytes, int]] = {}
        self._went: set[bytes] = set()
        self._digests: Counter[bytes] = Counter()
        self.pruned: set[tuple[bytes, int]] = set()
        self._folder = folder
        self._history = history
        self._custodian = custodian
        self._held = {kind: set(keys.ids(kind)) for kind in (IDENTITY_KIND, SUBJECT_KIND)}
        self._chain_id = ""
        self._log = Log()
        self._trie = Trie()
        self._next_height = 0
        self._whole = True
        self._locked: set[str] = set()
        self._missing: list[tuple[str, bytes, int]] = []
        self._subject_of: dict[bytes, object] = {}
        self._forgotten: set[object] = set()
        self._last: tuple[str, int] = ("log", 0)
        self.faults: list[Fault] = []
        self.blocks = 0
        self.transactions = 0
        self.erased = Erased()

    def genesis(self) -> Genesis | None:
        try:
            genesis = open_genesis((self._folder / "genesis").read_bytes())
        except (EhrfastError, FileNotFoundError) as error:
            code = error.code if isinstance(error, EhrfastError) else "genesis.missing"
            self.faults.append(Fault("genesis", 0, code, None))
            return None
        self._chain_id = genesis.chain_id
        self._genesis_leaf = b"\x00" + blake3_digest(genesis.encode())
        for organisation in genesis.organisations:
            if organisation.id == self._custodian:
                self._require_keys(IDENTITY_KIND, [admin for admin, _ in organisation.admins], 0)
        return genesis

    def take(self, file: str, offset: int, found: Frame | FrameFault) -> None:
        self._last = (file, offset)
        if not isinstance(found, Frame):
            self._whole = False
            self.faults.append(Fault(file, offset, found.kind, found.height))
            if found.kind == "segment.key_missing" and file not in self._locked:
                self._locked.add(file)
                self.faults.append(Fault(KEY_ENTRIES, 0, "keys.segment_missing", found.height))
            return
        self.blocks += 1
        try:
            kinds = [*self._links(found), *self._calls(found), *self._state(found), *self._packs(found)]
        except EhrfastError as error:
            self._whole = False
            kinds = [error.code]
        self.faults += [Fault(file, offset, kind, found.height) for kind in kinds]

    def finish(self, state: StateDb | None, *, bounded: bool) -> None:
        for digest, height in self.blobs():
            kind = None if self.blob_fault is None else self.blob_fault(digest)
            if kind is not None:
                self.faults.append(Fault(f"blobs/{digest.hex()}", 0, kind, height))
        for kind, identifier, height in self._missing:
            subject = identifier if kind == SUBJECT_KIND else self._subject_of.get(identifier)
            if subject not in self._forgotten:
                self.faults.append(Fault(KEY_ENTRIES, 0, f"keys.{kind}_missing", height))
        note = self._checkpoint()
        cosigned = self._cosigned()
        if not self._whole:
            return
        file, offset = self._last
        if note is not None and note.tree_size > self._log.tree_size:
            if not bounded:  # else the writer has gone on since
                self.faults.append(Fault(file, offset, "log.shorter_than_checkpoint", self._next_height - 1))
        elif note is not None and self._log.root(note.tree_size) != note.root:
            self.faults.append(Fault("checkpoint", 0, "log.not_the_checkpoint", None))
        for each in cosigned:
            if each.tree_size <= self._log.tree_size and self._log.root(each.tree_size) != each.root:
                self.faults.append(Fault(COSIGNATURES, 0, "log.not_the_checkpoint", None))
            elif each.tree_size > self._log.tree_size and not bounded:
                self.faults.append(Fault(COSIGNATURES, 0, "log.shorter_than_checkpoint", self._next_height - 1))
        if state is not None:
            self._database(state)

    def _database(self, state: StateDb) -> None:
        try:
            differs = Trie.from_state(state).root != self._trie.root
        except EhrfastError as error:
            self.faults.append(Fault("state", 0, error.code, state.applied_height))
            return
        if differs and state.applied_height == self._next_height - 1:
            self.faults.append(Fault("state", 0, "state.database_differs", state.applied_height))

    def _checkpoint(self) -> Checkpoint | None:
        if self._history is None:
            return None
        try:
            note = CheckpointFile.open(str(self._folder / "checkpoint"), read_only=True).read()
            return None if note is None else self._history.open_checkpoint(note)
        except EhrfastError as error:
            self.faults.append(Fault("checkpoint", 0, error.code, None))
            return None

    def _cosigned(self) -> Sequence[Checkpoint]:
        if self._history is None:
            return ()
        try:
            return [each.checkpoint for each in load_cosigned(self._folder, self._history).values()]
        except EhrfastError as error:
            self.faults.append(Fault(COSIGNATURES, 0, error.code, None))
            return ()

    def _links(self, frame: Frame) -> Sequence[str]:
        head = head_of(frame)
        kinds = []
        if head.height != frame.height or head.chain_id != self._chain_id:
            kinds.append("log.wrong_block")
        if self._whole:
            linked = head.first_index == self._log.tree_size and head.previous_root == self._log.root()
            if not linked or head.height != self._next_height:
                kinds.append("log.broken_link")
            if head.height == 0 and frame.leaves[0] != self._genesis_leaf:
                kinds.append("log.other_genesis")
            founder = None if self._history is None else self._history.founding.public_key
            if head.height == 0 and founder not in (None, head.proposer):
                self.faults.append(Fault(KEY_HISTORY, 0, "keys.history_missing", 0))
            self._log.append(frame.leaves)
        self._next_height = frame.height + 1
        return kinds

    def _calls(self, frame: Frame) -> Sequence[str]:
        received = [item for item in frame.transactions if item is not None]
        verdicts = admit_transactions(received, self._chain_id, MAX_RECORDS_TRANSACTION_BYTES)
        kinds = [verdict for verdict in verdicts if isinstance(verdict, str)]
        known = {verdict.id: verdict for verdict in verdicts if isinstance(verdict, Transaction)}
        erased = len(frame.transactions) - len(received)
        self.transactions += len(received)
        first = head_of(frame).first_index
        for number, receipt in enumerate(frame.receipts):
            leaf = frame.leaves[number]
            decoded = Receipt.decode(receipt)
            if decoded.id != leaf[1:33] or decoded.index != first + number or decoded.height != frame.height:
                kinds.append("receipt.wrong_place")
            transaction = known.get(leaf[1:33]) if leaf[:1] == b"\x01" else None
            if transaction is not None and decoded.applied:
                self._keys_named(transaction, decoded)
            if transaction is not None:
                sound = transaction_leaf(transaction.id, transaction.received_digest, receipt) == leaf
            else:
                sound = leaf[-32:] == blake3_digest(receipt) and (leaf[:1] == b"\x03" or erased > 0)
            if not sound:
                kinds.append("log.wrong_leaf")
        return kinds

    def _keys_named(self, transaction: Transaction, receipt: Receipt) -> None:
        """The log tells which keys its custodian drew, each durable before the block that names it, and which it
        has forgotten."""
        custodians = {values[0] for contract, _, values in receipt.events if contract == "records" and values}
        argument = _EPOCHS_ARGUMENT.get((transaction.contract, transaction.method))
        if argument is not None and self._custodian in custodians:
            epochs = transaction.args.get(argument, ())
            if isinstance(epochs, tuple):
                self._require_keys(SUBJECT_KIND, [epoch[0] for epoch in epochs], receipt.height)
        versions = transaction.args.get(1, ())
        if transaction.contract == "records" and transaction.method in _PRUNINGS and isinstance(versions, tuple):
            named = {(each[0], each[1]) for each in versions}
            (self.pruned.update if transaction.method == "prune" else self.pruned.difference_update)(named)
        for contract, name, values in receipt.events:
            if (contract, name) == ("records", "SubjectErased"):
                self._forgotten.add(values[0])
            if (contract, name) == ("identity", "Enrolled") and values[1] == self._custodian:
                identity = values[0]
                if isinstance(identity, bytes):
                    self._subject_of[identity] = transaction.args.get(_SUBJECT_ARGUMENT)
                if transaction.args.get(_CUSTODY_ARGUMENT) == _CUSTODIAL and isinstance(identity, bytes):
                    self._require_keys(IDENTITY_KIND, [identity], receipt.height)

    def _require_keys(self, kind: str, ids: Sequence[bytes], height: int) -> None:
        for identifier in ids:
            if identifier not in self._held[kind]:
                self._held[kind].add(identifier)
                self._missing.append((kind, identifier, height))

    def _state(self, frame: Frame) -> Sequence[str]:
        if not self._whole:
            return ()
        self._trie = self._trie.update(frame.write_set)
        return () if self._trie.root == head_of(frame).state_root else ("state.wrong_root",)

    def blobs(self) -> list[tuple[bytes, int]]:
        """(digest, height) of what must lie outside the log."""
        return [found for path, found in self._blobs.items() if path not in self._went]

    def items_gone(self) -> int:
        """Items of which the log has the digest and nobody the bytes; a pack may stand in several blocks."""
        outside = {digest for digest, _ in self.blobs()}
        return sum(count for digest, count in self._digests.items() if digest not in outside)

    def _follow_blobs(self, frame: Frame) -> None:
        """Whether a blob must be there is what the newest row of its version says."""
        for path, stored in frame.write_set.items() if self._blobs else ():
            if path in self._blobs and stored is not None:
                row = cbor_decode(stored[16:])
                went = isinstance(row, tuple) and isinstance(row[10], int) and row[10] & _WENT
                (self._went.add if went else self._went.discard)(path)
        self._went.update(path for path, _ in frame.write_set.erased)

    def _packs(self, frame: Frame) -> Sequence[str]:
        """Counts what is gone. The scan has held what is left, digests included, against the roots."""
        self.erased += Erased(*frame.erased)
        self._follow_blobs(frame)
        if frame.erased[2]:
            self._find_blobs(frame)
            for pack in map(frame.stored_pack, frame.pack_roots):
                self._digests.update(pack.item_digest(at) for at in range(len(pack)) if pack.item(at) is None)
        return ()

    def _find_blobs(self, frame: Frame) -> None:
        """Remembers the items that lie outside, until a later write says that they went."""
        for transaction in frame.decoded_transactions():
            if transaction is None or (transaction.contract, transaction.method) != ("records", "put"):
                continue
            for row in transaction.args.get(1, ()):  # type: ignore[attr-defined]
                if row[8] != _BLOB:
                    continue
                stored = frame.stored_pack(transaction.attachments[row[6]][0])
                if stored.wraps(row[7]) is not None:
                    path = state_path("records", (row[0], row[1]))
                    self._blobs[path] = (stored.item_digest(row[7]), frame.height)
