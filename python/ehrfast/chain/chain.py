"""One chain: the pipeline's stages composed, driven by an engine, over one folder.

Owns the threads between the stages. Reads see published state only. After a failed append or sync it refuses every
write: what was acknowledged is safe, what was not is unknown to its sender and must be asked for by id after reopening.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, NamedTuple

from ehrfast._core import (
    Block,
    KeyStore,
    Log,
    SealedPack,
    SegmentLog,
    SigningKey,
    StateView,
    Transaction,
    Trie,
)
from ehrfast.chain.admit import AdmissionRules, Submission, admit
from ehrfast.chain.assemble import assemble
from ehrfast.chain.clock import ChainClock
from ehrfast.chain.commit import commit
from ehrfast.chain.cosign import PROVING_S, Cosigner, load_cosigned
from ehrfast.chain.execute import Execution, execute
from ehrfast.chain.fsck import FsckReport, fsck
from ehrfast.chain.key_history import keep_history, load_history
from ehrfast.chain.order import MAX_BLOCK_BYTES, MAX_BLOCK_ITEMS, order
from ehrfast.chain.pending import PendingReceipt, PendingReceipts, Settlement, refusal, settle
from ehrfast.chain.prove import prove
from ehrfast.chain.publish import Published, publish
from ehrfast.chain.recover import Recovered, create_log, head_of, recover
from ehrfast.chain.replay import WINDOW_MS
from ehrfast.chain.snapshot import Kind, snapshot_parts
from ehrfast.chain.subscribe import Subscription
from ehrfast.consensus.engine import (
    Admitted,
    Batch,
    Committed,
    Engine,
    Executed,
    QueryAnswer,
    SnapshotOffer,
    build_engine,
    total_bytes,
)
from ehrfast.consensus.lanes import EMERGENCY, Lanes
from ehrfast.contracts.contract import BlockContext
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import ConflictError, CorruptionError, EhrfastError, NotFoundError, UnavailableError
from ehrfast.model.ask_witness import WitnessAddress
from ehrfast.model.block import PublishedBlock
from ehrfast.model.checkpoint import Checkpoint, add_signatures, sign_checkpoint
from ehrfast.model.genesis import Genesis, open_genesis
from ehrfast.model.key_history import KeyHistory, Rotation
from ehrfast.model.proof import Evidence
from ehrfast.model.receipt import Receipt

MAX_PENDING: Final = 50_000
MAX_PENDING_BYTES: Final = 256 * 1024 * 1024
RECENT_BLOCKS: Final = 32
ADMISSION_ITEMS: Final = 2048
"""Signatures judged at once: enough for a batch to pay, few enough that the first block need not wait for the last."""
VIEWS_KEPT: Final = 4096
"""Views that share what they read of one published state, so that a chain at rest does not remember all of it."""
LANES_KEPT: Final = 1024
"""Methods whose lane is remembered; a stranger may name any number of them."""
SUBMIT_TIMEOUT_S: Final = 60.0


@dataclass(slots=True)
class _Assembled:
    """A block between execution and publication."""

    block: Block
    trie: Trie
    view: StateView
    execution: Execution
    ids: frozenset[bytes]


class _Waiting(NamedTuple):
    """A promise given and not yet kept, and the room its packs take up."""

    receipt: PendingReceipt
    packed: int


class Chain:
    """A chain in this process. Build with `create` or `open`; close it, or use it in a ``with`` block."""

    def __init__(
        self,
        *,
        folder: Path,
        genesis: Genesis,
        keys: KeyStore,
        signer: SigningKey,
        runtime: Runtime,
        recovered: Recovered,
        engine: Engine | None,
        clock: ChainClock,
        cosigner: Cosigner,
        history: KeyHistory,
    ) -> None:
        self.folder = folder
        self.genesis = genesis
        self.chain_id = genesis.chain_id
        self.clock = clock
        self.runtime = runtime
        self._keys = keys
        self._signer = signer
        self._history = history
        self._segments = recovered.segments
        self._state = recovered.state
        self._log = recovered.log
        self._slots = recovered.slots
        self._published = recovered.published
        self._window = recovered.window
        self._cosigned: bytes | None = None
        lane = lru_cache(LANES_KEPT)(runtime.registry.lane)
        self._rules = AdmissionRules(self.chain_id, frozenset(runtime.registry.names), lane)
        self._lanes = Lanes()
        self._early: list[Admitted] = []
        self._assembled: deque[_Assembled] = deque()
        self._recent: deque[PublishedBlock] = deque(maxlen=RECENT_BLOCKS)
        self._state_lock = threading.Lock()
        self._changed = threading.Condition()
        self._settled = Settlement()
        self._pending: dict[bytes, _Waiting] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._intake: SimpleQueue[list[tuple[Submission, PendingReceipt]] | None] = SimpleQueue()
        self._subscriptions: list[Subscription] = []
        self._failure: EhrfastError | None = None
        self._closed = False
        self._pid = os.getpid()
        self._earliest_timer = runtime.earliest_timer(StateView(self._state))
        self._view: tuple[Published, StateView] | None = None
        self._view_uses = 0
        self._engine = engine
        self.cosigner = cosigner
        cosigner.attach(self.add_cosignatures, self._stop_after)
        self._admission: threading.Thread | None = None
        if engine is not None:
            self._admission = threading.Thread(target=self._admit_loop, name="ehrfast-admit", daemon=True)
            self._admission.start()
            engine.start(self, clock=clock.now_ms, next_due=self._next_due, failed=self._stop_after)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def create(folder: Path, signed_genesis: bytes, *, keys: KeyStore, signer: SigningKey, runtime: Runtime) -> None:
        """Writes block 0 of a new chain into an empty folder."""
        genesis = open_genesis(signed_genesis)
        folder.mkdir(parents=True)
        create_log(folder, signed_genesis, genesis, keys=keys, signer=signer, runtime=runtime)

    @staticmethod
    def open(
        folder: Path,
        *,
        keys: KeyStore,
        signer: SigningKey,
        runtime: Runtime,
        engine: Engine | None = None,
        read_only: bool = False,
        trust_clock: bool = False,
        witnesses: Iterable[WitnessAddress] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Chain:
        """Opens a chain, recovering whatever a crash left.

        Args:
            engine: who drives it; by default the genesis' engine. A read-only chain has none.
            witnesses: asked before anything is written whether they have seen a longer or another log; one that
                cannot be reached within some seconds is asked again later.
            progress: called with (blocks read, blocks there).

        Raises:
            CorruptionError: the log is shorter than a checkpoint that is known here or to a witness, or another log;
                or a root does not recompute.
        """
        genesis = open_genesis((folder / "genesis").read_bytes())
        history = load_history(folder, genesis.chain_id, signer.public_key, read_only=read_only)
        cosigned = load_cosigned(folder, history)
        recovered = recover(
            folder,
            genesis,
            keys=keys,
            signer=signer,
            runtime=runtime,
            read_only=read_only,
            progress=progress,
            cosigned=[each.checkpoint for each in cosigned.values()],
            history=history,
        )
        driver = None if read_only else engine or build_engine(genesis.engine)
        clock = ChainClock(recovered.published.time_ms, trusted=trust_clock)
        cosigner = Cosigner(
            folder,
            history=history,
            note=recovered.published.note,
            prove_consistency=recovered.log.prove_consistency,
            known=cosigned,
            witnesses=witnesses,
            following=not read_only,
        )
        try:
            cosigner.wait_answered()
        except CorruptionError:
            cosigner.stop()
            recovered.state.close()
            recovered.segments.close()
            raise
        return Chain(
            folder=folder,
            genesis=genesis,
            keys=keys,
            signer=signer,
            runtime=runtime,
            recovered=recovered,
            engine=driver,
            clock=clock,
            cosigner=cosigner,
            history=history,
        )

    def close(self) -> None:
        """Runs and commits what was admitted, then lets go of the folder."""
        if self._closed:
            return
        self._closed = True
        if self._admission is not None:
            self._intake.put(None)
            self._admission.join()
        if self._engine is not None:
            self._engine.stop()
        self._refuse_waiting(UnavailableError("chain.closed"))
        self.cosigner.stop()
        for subscription in self._subscriptions:
            subscription.stop()
        if self._engine is not None and self._failure is None:
            self._slots.write(self._published.note, sync=True)
            self._state.keep_top(self._published.trie)
        self._state.close()
        self._segments.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Chain({self.chain_id}, height={self._published.height})"

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, transaction: Transaction | bytes, packs: Sequence[SealedPack] = ()) -> PendingReceipt:
        """Hands in one signed transaction.

        Args:
            transaction: as received, or decoded.
            packs: sealed records that travel with it, in the order of its attachments.

        Returns:
            A promise; settled once the block is durable and published, or the transaction refused.

        Raises:
            UnavailableError: the chain is closed, has stopped writing, or is full for a minute.
        """
        return self.submit_many([Submission(transaction, tuple(packs))])[0]

    def submit_many(self, submissions: Sequence[Submission]) -> PendingReceipts:
        """Hands in many at once; order is kept within a lane. See `submit`."""
        self._make_room(submissions)
        entries = [(submission, PendingReceipt(self._settled)) for submission in submissions]
        if entries:
            self._intake.put(entries)
        return PendingReceipts([pending for _, pending in entries])

    def require_writable(self) -> None:
        """Returns while the chain takes transactions; asked before anything is prepared for one.

        Raises:
            UnavailableError: ``node.forked``, ``chain.read_only``, ``chain.closed``, ``chain.stopped`` with its cause.
        """
        if os.getpid() != self._pid:
            raise UnavailableError("node.forked")
        if self._failure is not None:
            raise UnavailableError("chain.stopped", {"cause": self._failure.code})
        if self._closed or self._engine is None:
            raise UnavailableError("chain.closed" if self._closed else "chain.read_only")

    def _make_room(self, submissions: Sequence[Submission]) -> None:
        self.require_writable()  # before the lock: in a forked child nobody would ever release it
        size = _packed(submissions)
        deadline = monotonic() + SUBMIT_TIMEOUT_S
        with self._settled:
            while True:
                self.require_writable()
                if not self._waiting or (
                    self._waiting + len(submissions) <= MAX_PENDING and self._waiting_bytes + size <= MAX_PENDING_BYTES
                ):
                    break
                if monotonic() >= deadline:
                    raise UnavailableError("chain.busy")
                self._settled.wait(1.0)
            self._waiting += len(submissions)
            self._waiting_bytes += size

    def _settle(self, outcomes: Sequence[tuple[PendingReceipt, Receipt | EhrfastError]], released_bytes: int) -> None:
        with self._settled:
            self._waiting -= len(outcomes)
            self._waiting_bytes -= released_bytes
        settle(self._settled, outcomes)

    def _admit_loop(self) -> None:
        while (first := self._intake.get()) is not None:
            entries = list(first)
            stop = False
            while len(entries) < 4096:
                try:
                    more = self._intake.get_nowait()
                except Empty:
                    break
                if more is None:
                    stop = True
                    break
                entries.extend(more)
            for start in range(0, len(entries), ADMISSION_ITEMS):
                self._admit_or_stop(entries[start : start + ADMISSION_ITEMS])
            if stop:
                return

    def _admit_or_stop(self, entries: list[tuple[Submission, PendingReceipt]]) -> None:
        try:
            self._admit(entries)
        except BaseException as error:  # nothing can be admitted any more; `failure` keeps the place
            self._stop_after(error)
            self._refuse([pending for _, pending in entries if not pending.done()])

    def _admit(self, entries: list[tuple[Submission, PendingReceipt]]) -> None:
        if self._failure is not None:
            self._refuse([pending for _, pending in entries])
            return
        steady = self.clock.steady
        admitted: list[Admitted] = []
        refused: list[tuple[PendingReceipt, Receipt | EhrfastError]] = []
        let_go: list[Submission] = []
        verdicts = admit([submission for submission, _ in entries], self._rules)
        for (submission, pending), verdict in zip(entries, verdicts, strict=True):
            if isinstance(verdict, str):
                code = verdict
            else:
                identifier = verdict.transaction.id
                hint = self._hint(identifier, verdict.lane, steady)
                if hint is None:
                    waiting = _Waiting(pending, _packed([submission]) if submission.packs else 0)
                    if self._pending.setdefault(identifier, waiting) is waiting:
                        admitted.append(verdict)
                        continue
                code = hint or "transaction.replayed"
            refused.append((pending, refusal(code)))
            let_go.append(submission)
        if refused:
            self._settle(refused, _packed(let_go))
        if admitted:
            self._lanes.add(admitted)
            if self._engine is not None:
                self._engine.wake()
        if self._failure is not None:  # it stopped meanwhile: what was added since would wait for ever
            self._refuse_waiting(UnavailableError("chain.stopped", {"cause": self._failure.code}))

    def _hint(self, transaction_id: bytes, lane: int, steady: bool) -> str | None:
        """What published state already tells; execution judges again."""
        if transaction_id in self._window:
            return "transaction.replayed"
        if not steady and lane != EMERGENCY:
            return "clock.unsteady"
        return None

    def _refuse_waiting(self, error: EhrfastError) -> None:
        with self._settled:
            waiting, self._pending = self._pending, {}
        self._lanes.drain()
        self._early.clear()
        self._keep([(promise, error) for promise in waiting.values()])

    def _refuse(self, pending: Sequence[PendingReceipt]) -> None:
        """Answers what came to a stopped chain; its room is counted no more, as nothing is taken any more."""
        cause = "chain.fault" if self._failure is None else self._failure.code
        stopped = UnavailableError("chain.stopped", {"cause": cause})
        self._settle([(each, stopped) for each in pending], 0)

    def _stop_after(self, error: BaseException) -> None:
        """The engine, or a stage, failed: no write is accepted any more, and no pending one is called a success."""
        cause = error if isinstance(error, EhrfastError) else None
        if cause is None:  # its text could quote a record: the kind and the place are kept, not the words
            fault = UnavailableError("chain.fault", {"kind": type(error).__name__})
            cause = fault.with_traceback(error.__traceback__)
        self._failure = self._failure or cause
        stopped = UnavailableError("chain.stopped", {"cause": cause.code})
        stopped.__cause__ = cause
        self._refuse_waiting(stopped)

    # ── the six verbs ───────────────────────────────────────────────────────────────────────────────────────────

    def propose(self, time_ms: int) -> Batch | None:
        """Takes the next batch out of the lanes; see `Application.propose`."""
        last = self._last()
        block_time = max(last.time_ms + 1, time_ms)
        self._release_early(block_time)
        proposer = self._signer.public_key
        batch = order(self._lanes, engine_height=last.engine_height + 1, time_ms=block_time, proposer=proposer)
        if len(self._lanes) and self._engine is not None:
            self._engine.wake()
        due = self._earliest_timer is not None and self._earliest_timer <= block_time
        return batch if batch.items or due else None

    def validate(self, batch: Batch) -> bool:
        """Whether the batch comes after the last block, fits a block, and every item is signed and of this chain."""
        if batch.time_ms <= self._last().time_ms or len(batch.items) > MAX_BLOCK_ITEMS:
            return False
        admitted: list[Admitted] = []
        for verdict in admit([Submission(item.transaction, item.packs) for item in batch.items], self._rules):
            if isinstance(verdict, str):
                return False
            admitted.append(verdict)
        return len(admitted) == 1 or total_bytes(admitted) <= MAX_BLOCK_BYTES

    def execute(self, batch: Batch) -> Executed:
        """Runs a batch over the newest executed state; see `Application.execute`."""
        parent = next(reversed(list(self._assembled)), None)
        last = self._published if parent is None else parent.block
        view = StateView(self._state, None if parent is None else parent.view)
        execution = execute(
            batch,
            runtime=self.runtime,
            view=view,
            block=BlockContext(self.chain_id, last.height + 1, batch.time_ms),
            first_index=last.tree_size,
            seen=self._executed,
        )
        self._keep_early(execution)
        if not execution.entries:
            self._settle_refused(execution.refused)
            return Executed(None, _app_hash(last), 0)
        block, trie = assemble(
            execution,
            batch,
            view.write_set(),
            log=self._log,
            trie=self._published.trie if parent is None else parent.trie,
            chain_id=self.chain_id,
            height=last.height + 1,
        )
        self._earliest_timer = self.runtime.earliest_timer(view)
        ids = frozenset(receipt.id for receipt in execution.receipts)
        self._assembled.append(_Assembled(block, trie, view, execution, ids))
        if self._assembled[0].view is view:
            view.detach_parent()
        self._settle_refused(execution.refused)
        return Executed(block.height, _app_hash(block), block.leaf_count + 1)

    def commit(self) -> Committed:
        """Makes the oldest executed block durable and publishes it; see `Application.commit`."""
        if not self._assembled:
            return Committed(None, 0)
        oldest = self._assembled[0]
        block, execution = oldest.block, oldest.execution
        commit(self._segments, block, execution.packs)
        with self._state_lock:
            if self._failure is not None:
                raise UnavailableError("chain.stopped", {"cause": self._failure.code})
            published = publish(
                block, oldest.trie, log=self._log, state=self._state, signer=self._signer, slots=self._slots
            )
            self._published = published
            self._window.add(oldest.ids, block.time_ms)
            kept = [(self._pending.pop(receipt.id, None), receipt) for receipt in execution.receipts]
            self._assembled.popleft()
            if self._assembled:
                self._assembled[0].view.detach_parent()
        self.cosigner.show(published.note, published.tree_size)
        self._window.forget_before(block.time_ms)
        told = _as_published(oldest)
        with self._changed:
            self._recent.append(told)
            self._changed.notify_all()
        self._keep([(promise, receipt) for promise, receipt in kept if promise is not None])
        return Committed(block.height, 0)

    def snapshot(self) -> tuple[SnapshotOffer, ...]:
        """The published state: `snapshot_parts` writes it out of a chain opened read-only, where it stands still."""
        published = self._published
        return (SnapshotOffer(published.height, published.tree_size, published.state_root),)

    def snapshot_parts(self) -> Iterator[tuple[Kind, bytes]]:
        """The parts of a snapshot of the published state, one at a time; see `chain.snapshot`.

        Raises:
            ConflictError: ``snapshot.moving``: a chain that is written to has no state that stands still.
        """
        if self._engine is not None:
            raise ConflictError("snapshot.moving")
        return snapshot_parts(self._published, state=self._state, log=self._log, segments=self._segments)

    def query(self, path: bytes) -> QueryAnswer:
        """A published value by its trie path, with its proof."""
        with self._state_lock:
            return QueryAnswer(self._published.height, self._state.get(path), self._published.trie.prove(path))

    def _last(self) -> Published | Block:
        """The newest executed version, published or not."""
        newest = next(reversed(list(self._assembled)), None)
        return self._published if newest is None else newest.block

    def _executed(self, ids: Collection[bytes]) -> set[bytes]:
        """Those executed already. A block enters the window before it leaves the assembled ones: asked in that order,
        a commit meanwhile hides none."""
        waiting = [block.ids for block in list(self._assembled)]
        found = self._window.known(ids)
        return found.union(*(unpublished.intersection(ids) for unpublished in waiting))

    def _in_flight(self, transaction_id: bytes) -> bool:
        """Whether it is executed and its block not yet published."""
        return any(transaction_id in block.ids for block in list(self._assembled))

    def _release_early(self, block_time: int) -> None:
        if self._early:
            due = [item for item in self._early if item.transaction.expires <= block_time + WINDOW_MS]
            self._early = [item for item in self._early if item.transaction.expires > block_time + WINDOW_MS]
            self._lanes.put_back(due)

    def _keep_early(self, execution: Execution) -> None:
        """Keeps each early item once, until it runs or is refused, in whichever block another node puts it."""
        if not self._early and not execution.early:
            return
        over = {receipt.id for receipt in execution.receipts}
        over.update(item.transaction.id for item, _ in execution.refused)
        waiting = {item.transaction.id: item for item in (*self._early, *execution.early)}
        self._early = [item for identifier, item in waiting.items() if identifier not in over]

    def _next_due(self) -> int | None:
        early = min((item.transaction.expires - WINDOW_MS for item in list(self._early)), default=None)
        return min((due for due in (early, self._earliest_timer) if due is not None), default=None)

    def _settle_refused(self, refused: Sequence[tuple[Admitted, str]]) -> None:
        """Tells who was refused. A twin of a transaction in flight is silent: the receipt comes with that block."""
        kept: list[tuple[_Waiting, Receipt | EhrfastError]] = []
        for item, code in refused:
            if self._in_flight(item.transaction.id):
                continue
            promise = self._pending.pop(item.transaction.id, None)
            if promise is not None:
                kept.append((promise, refusal(code)))
        self._keep(kept)

    def _keep(self, promises: Sequence[tuple[_Waiting, Receipt | EhrfastError]]) -> None:
        if promises:
            outcomes = [(promise.receipt, outcome) for promise, outcome in promises]
            self._settle(outcomes, sum(promise.packed for promise, _ in promises))

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def published(self) -> Published:
        """The newest readable version."""
        return self._published

    @property
    def key_history(self) -> KeyHistory:
        """The keys this chain's checkpoints have been signed with."""
        return self._history

    @contextmanager
    def changing_signer(self, signer: SigningKey) -> Iterator[None]:
        """States durably that another key follows; it is in force once the block of the caller has succeeded.

        Nothing is published meanwhile, so no checkpoint is signed by a key that is not in force at its size.
        """
        with self._state_lock:
            published = self._published
            rotation = Rotation.sign(self.chain_id, published.tree_size, self._signer, signer)
            history = self._history.followed_by(rotation)
            keep_history(self.folder, history)
            try:
                yield
            except BaseException as error:  # which key is in force, only the next open can tell
                self._stop_after(error)
                raise
            note = sign_checkpoint(Checkpoint(self.chain_id, published.tree_size, published.log_root), signer)
            self._slots.write(note, sync=True)
            self._signer, self._history, self._cosigned = signer, history, None
            self._published = replace(published, note=note)
            self.cosigner.follow_key(history, note)

    @property
    def signer_public_key(self) -> bytes:
        """The key this node signs checkpoints with."""
        return self._signer.public_key

    def fsck(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        blob_fault: Callable[[bytes], str | None] | None = None,
    ) -> FsckReport:
        """Derives everything again from the bytes on disk, up to the newest published block; see `chain.fsck`."""
        with self._state_lock:
            return fsck(
                self.folder,
                keys=self._keys,
                history=self._history,
                state=None if self._engine is None else self._state,
                max_height=self._published.height,
                blob_fault=blob_fault,
                progress=progress,
            )

    @property
    def failure(self) -> EhrfastError | None:
        """Why the chain stopped writing, or None."""
        return self._failure

    def view(self, contract: str, name: str, arguments: Mapping[str, object]) -> object:
        """Asks a contract's published view about the published state."""
        published = self._published
        context = BlockContext(self.chain_id, published.height, self.clock.judging_ms(published.time_ms))
        return self.runtime.view(self._viewed(published), contract, name, arguments, block=context)

    def _viewed(self, published: Published) -> StateView:
        """The state as published, for views: what one has read the next need not read again."""
        known = self._view
        if known is None or known[0] is not published or self._view_uses >= VIEWS_KEPT:
            self._view, self._view_uses = (published, StateView(self._state)), 0
            return self._view[1]
        self._view_uses += 1
        return known[1]

    def prove(
        self,
        keys: Sequence[tuple[str, tuple[object, ...]]],
        *,
        opening_key: bytes | None = None,
        quorum: int | None = None,
        timeout: float = PROVING_S,
    ) -> Evidence:
        """Evidence for state values under the newest checkpoint; see `chain.prove`.

        Args:
            quorum: how many witnesses must have cosigned that checkpoint; by default as many as can be reached.
            timeout: seconds to wait for them.

        Raises:
            UnavailableError: ``checkpoint.quorum_missed``.
        """
        with self._state_lock:
            published = self._published
            evidence = prove(
                keys,
                published=published,
                log=self._log,
                state=self._state,
                note=published.note,
                opening_key=opening_key,
            )
            # Announced while no newer one can be published: a witness signs no older checkpoint after a newer one.
            self.cosigner.want(published.note, published.tree_size, quorum=quorum)
        lines = self.cosigner.collect(published.tree_size, quorum=quorum, timeout=timeout)
        return evidence.with_signatures(lines) if lines else evidence

    @property
    def checkpoint(self) -> bytes:
        """The newest checkpoint, with the witnesses' cosignatures when they are for this very tree."""
        published, cosigned = self._published, self._cosigned
        if cosigned is not None and cosigned.startswith(published.note):
            return cosigned
        return published.note

    def add_cosignatures(self, note: bytes, lines: Sequence[str]) -> None:
        """Keeps witnesses' cosignature lines beside the checkpoint they are for, while it is the newest."""
        with self._state_lock:
            if note == self._published.note:
                self._cosigned = add_signatures(self.checkpoint, lines)

    @property
    def log(self) -> Log:
        """The RFC 6962 tree; leaves beyond the published tree size are not anybody's business yet."""
        return self._log

    @property
    def segments(self) -> SegmentLog:
        """The block log."""
        return self._segments

    def leaves(self, tree_size: int) -> Iterator[bytes]:
        """Leaf preimages in order, up to a tree size."""
        count = 0
        for height in range(self._published.height + 1):
            for leaf in self._segments.read(height).leaves:
                if count == tree_size:
                    return
                yield leaf
                count += 1

    def find_receipt(self, transaction_id: bytes) -> Receipt:
        """The receipt of an executed transaction.

        Raises:
            NotFoundError: ``transaction.unknown``; it may still be pending.
        """
        place = self._state.find_transaction(transaction_id)
        if place is None or place[0] > self._published.height:
            raise NotFoundError("transaction.unknown")
        for _, receipt in self.read_block(place[0]).calls:
            if receipt.id == transaction_id:
                return receipt
        raise NotFoundError("transaction.unknown")

    def read_block(self, height: int) -> PublishedBlock:
        """A published block, from memory when it is recent."""
        for block in list(self._recent):
            if block.height == height:
                return block
        frame = self._segments.read(height)
        transactions = iter(frame.decoded_transactions())
        calls = []
        for leaf, receipt in zip(frame.leaves[:-1], frame.receipts, strict=False):
            transaction = next(transactions) if leaf[:1] == b"\x01" else None
            calls.append((transaction, Receipt.decode(receipt)))
        return PublishedBlock(height, head_of(frame).time_ms, tuple(calls), frame.stored_pack)

    def forget_recent(self) -> None:
        """Lets go of the blocks kept in memory: their records may have been erased from the log."""
        with self._changed:
            self._recent.clear()

    def read_digest(self, height: int, pack_root: bytes, position: int) -> bytes:
        """Digest of an item of a published block, whether or not the item is there."""
        return self._segments.read(height).stored_pack(pack_root).item_digest(position)

    def read_part(
        self, height: int, pack_root: bytes, position: int, *, wraps_height: int | None = None
    ) -> tuple[bytes | None, bytes | None, bytes]:
        """(sealed item, its digest, its wraps) out of a published block: the item, or the digest where that is all
        there is.

        Args:
            wraps_height: the block with the wraps in force, when that is a later one.

        Raises:
            NotFoundError: ``log.erased``: the wraps are gone.
        """
        if wraps_height is None or wraps_height == height:
            return self._segments.read_part(height, pack_root, position)
        stored = self._segments.read(height).stored_pack(pack_root)
        wraps = self._segments.read(wraps_height).stored_pack(pack_root).wraps(position)
        if wraps is None:
            raise NotFoundError("log.erased", {"height": height})
        item = stored.item(position)
        return item, None if item is not None else stored.item_digest(position), wraps

    def subscribe(self, handler: Callable[[PublishedBlock], None], *, next_height: int = 0) -> Subscription:
        """Tells a handler of every published block from a height on, on a thread of its own."""
        subscription = Subscription(
            handler,
            read=self.read_block,
            published=lambda: self._published.height,
            changed=self._changed,
            next_height=next_height,
        )
        self._subscriptions.append(subscription)
        return subscription


def _packed(submissions: Iterable[Submission]) -> int:
    return sum(pack.size for submission in submissions for pack in submission.packs)


def _app_hash(version: Published | Block) -> bytes:
    return sha256(Checkpoint(version.chain_id, version.tree_size, version.log_root).body()).digest()


def _as_published(assembled: _Assembled) -> PublishedBlock:
    execution = assembled.execution
    calls = tuple(
        (entry if isinstance(entry, Transaction) else None, receipt)
        for (entry, _), receipt in zip(execution.entries, execution.receipts, strict=True)
    )
    packs = {pack.root: pack for pack in execution.packs}
    return PublishedBlock(assembled.block.height, assembled.block.time_ms, calls, packs.__getitem__)
