"""Engines against chains: under each, the same decided blocks give the same roots and every promise is kept once.

`EHRFAST_SEEDS` says how many simulated histories are run; a failure names its seed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from ehrfast._core import KeyStore, SigningKey, Transaction, decode_transaction, sign_transaction
from ehrfast.chain.admit import Submission
from ehrfast.chain.chain import Chain
from ehrfast.chain.clock import wall_ms
from ehrfast.chain.order import MAX_BLOCK_ITEMS
from ehrfast.chain.pending import PendingReceipt
from ehrfast.chain.replay import WINDOW_MS
from ehrfast.consensus import fake, solo
from ehrfast.consensus.engine import Admitted, Batch, Engine, SnapshotOffer, build_engine, engine_names
from ehrfast.consensus.fake import FakeEngine, Faults
from ehrfast.consensus.recording import Recording, played, recorded
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.runtime import Runtime
from ehrfast.errors import CorruptionError, EhrfastError, InvalidInputError
from ehrfast.model.genesis import Genesis, Organisation, sign_genesis
from ehrfast.model.receipt import Receipt

TOYS = ("tests.contracts_toy.counter", "tests.contracts_toy.relay")
REGISTRY = Registry(TOYS)
SEEDS = range(int(os.environ.get("EHRFAST_SEEDS", "12")))
START_MS = 1_700_000_000_000
ADMIN = SigningKey.from_seed(b"\x01" * 32)
SIGNER = SigningKey.from_seed(b"\x02" * 32)
SENDERS = [SigningKey.from_seed(bytes([number]) * 32) for number in (3, 4, 5)]
LIVES = 12
FAULTS = Faults(reorder=50, delay=25, abandon=25, repeat=25, ahead=50, crash=6)
HEALTHY = replace(FAULTS, crash=0)

assert {fake.FakeEngine.name, solo.SoloEngine.name} <= set(engine_names())


class Idle:
    """Drives nothing: whoever tests calls the verbs."""

    name = "idle"

    def start(self, application: object, **_: object) -> None:
        pass

    def wake(self) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass(slots=True)
class Place:
    """A folder in which one chain lives, time and again."""

    folder: Path
    genesis: bytes
    keys: KeyStore = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.keys = KeyStore.create(str(self.folder / "keys"), b"\x07" * 32)
        Chain.create(
            self.folder / "chain", self.genesis, keys=self.keys, signer=SIGNER, runtime=Runtime(REGISTRY)
        )

    def open(self, engine: Engine) -> Chain:
        return Chain.open(
            self.folder / "chain",
            keys=self.keys,
            signer=SIGNER,
            runtime=Runtime(REGISTRY),
            engine=engine,
            trust_clock=True,
        )


def genesis_at(time_ms: int) -> bytes:
    founding = Genesis(
        name="toy",
        time_ms=time_ms,
        engine="solo",
        organisations=(Organisation(b"\x09" * 16, ((b"\x08" * 16, ADMIN.public_key),), 1),),
        governors=((ADMIN.public_key,), 1),
        contract_set_hash=REGISTRY.contract_set_hash(),
        python_minor=sys.version_info.minor,
    )
    return sign_genesis(founding, [ADMIN])


# ── what is submitted ─────────────────────────────────────────────────────────────────────────────────────────────
def call_of(
    dice: random.Random, chain_id: str, contract: str, method: str, args: dict[int, object], expires: int, lane: int = 2
) -> Transaction:
    salt = dice.randbytes(16)
    return sign_transaction(
        dice.choice(SENDERS), chain_id, contract, method, args, lane=lane, expires=expires, salt=salt
    )


def load(dice: random.Random, chain_id: str, now_ms: int, count: int) -> list[Transaction]:
    """Calls that apply, fail, break and set timers; some that come too late and some that come too early."""
    later = now_ms + 50 * 60_000
    made: list[Transaction] = []
    for _ in range(count):
        name = dice.choice("abcdef")
        kind = dice.randrange(10)
        if kind < 4:
            made.append(call_of(dice, chain_id, "counter", "add", {1: name, 2: dice.randrange(9)}, later))
        elif kind == 4:
            made.append(
                call_of(dice, chain_id, "relay", "both", {1: name, 2: dice.choice("abc"), 3: True}, later)
            )
        elif kind == 5:
            made.append(call_of(dice, chain_id, "relay", "wrong", {1: 5}, later))
        elif kind == 6:
            due = now_ms + dice.randrange(200, 6000)
            made.append(call_of(dice, chain_id, "counter", "remind", {1: name, 2: due}, later, dice.randrange(3)))
        elif kind == 7:
            made.append(call_of(dice, chain_id, "counter", "missing", {1: name}, later))
        elif kind == 8:
            made.append(call_of(dice, chain_id, "counter", "add", {1: name}, now_ms - dice.randrange(1, 5000)))
        else:
            early = now_ms + WINDOW_MS + dice.randrange(1500, 4000)
            made.append(call_of(dice, chain_id, "counter", "add", {1: name, 2: 100}, early))
    return made


def forged(transaction: Transaction) -> bytes:
    """The same bytes with one bit of the signature turned; the signature stands last."""
    raw = bytearray(transaction.received)
    raw[-1] ^= 1
    return bytes(raw)


# ── how it went ───────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Standing:
    """What two chains must agree on."""

    height: int
    tree_size: int
    log_root: bytes
    state_root: bytes
    receipts: tuple[bytes, ...]
    times: tuple[int, ...]


def standing(chain: Chain) -> Standing:
    published = chain.published
    blocks = [chain.read_block(height) for height in range(1, published.height + 1)]
    receipts = tuple(receipt.encode() for block in blocks for _, receipt in block.calls)
    times = tuple(block.time_ms for block in blocks)
    return Standing(
        published.height, published.tree_size, published.log_root, published.state_root, receipts, times
    )


class Told:
    """Every outcome a promise was settled with."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[bytes, Receipt | str]] = []
        self.promises: list[PendingReceipt] = []

    def follow(self, transactions: Sequence[Transaction], promises: Iterable[PendingReceipt]) -> None:
        for transaction, promise in zip(transactions, promises, strict=True):
            self.promises.append(promise)
            promise.add_done_callback(partial(self._told, transaction.id))

    def _told(self, identifier: bytes, promise: PendingReceipt) -> None:
        self.outcomes.append((identifier, outcome_of(promise)))


def receipt_of(transaction: Transaction, told: Told, earlier: dict[bytes, list[Receipt | str]]) -> Receipt | None:
    listed = [outcome for identifier, outcome in told.outcomes if identifier == transaction.id]
    found = [outcome for outcome in (*earlier.get(transaction.id, ()), *listed) if isinstance(outcome, Receipt)]
    return found[0] if found else None


def outcome_of(promise: PendingReceipt, timeout: float = 0) -> Receipt | str:
    try:
        return promise.outcome(timeout)
    except EhrfastError as error:
        return error.code


def nothing_owed(chain: Chain) -> None:
    """No promise is open, and each was given back exactly the room it took."""
    assert (chain._waiting, chain._waiting_bytes, len(chain._pending)) == (0, 0, 0)


@dataclass(slots=True)
class Clock:
    """The time of a simulation: it passes when the simulation says so."""

    time_ms: int = START_MS

    def now_ms(self) -> int:
        return self.time_ms


# ── simulated histories ───────────────────────────────────────────────────────────────────────────────────────────
@dataclass(slots=True)
class History:
    genesis: bytes
    recording: Recording
    submitted: list[Transaction]
    end: Standing
    happened: Counter[str]
    outcomes: dict[bytes, list[Receipt | str]]


def admitted(chain: Chain, promises: Sequence[PendingReceipt]) -> None:
    """Waits for the admission thread, so that what the engine finds in the lanes depends on the seed alone."""
    while sum(promise.done() for promise in promises) + len(chain._lanes) < len(promises):
        time.sleep(0.0005)


def simulate(seed: int, folder: Path, *, faults: Faults = FAULTS) -> History:
    """One chain through several lives: an engine that crashes is followed by another with the same decisions."""
    dice = random.Random(seed)
    clock = Clock()
    recording = Recording()
    place = Place(folder, genesis_at(START_MS))
    happened: Counter[str] = Counter()
    outcomes: dict[bytes, list[Receipt | str]] = {}
    submitted: list[Transaction] = []
    again: list[Transaction] = []
    end: Standing | None = None

    for life in range(LIVES):
        engine = FakeEngine(
            seed * 1000 + life,
            faults=faults if life < LIVES - 1 else replace(faults, crash=0),
            recording=recording,
            clock=clock.now_ms,
            stepped=True,
        )
        told = Told()
        with place.open(engine) as chain:
            for _ in range(4):
                fresh = load(dice, chain.chain_id, clock.time_ms, dice.randrange(1, 7))
                offered = again + fresh
                again = []
                submitted += fresh
                if chain.failure is not None:
                    again = offered
                    break
                known = [item for item in submitted if receipt_of(item, told, outcomes) is not None]
                if known:
                    copy = chain.submit(dice.choice(known))
                    assert outcome_of(copy, 60) == "transaction.replayed", f"seed {seed}"
                    happened["copies refused"] += 1
                promises = chain.submit_many([Submission(item) for item in offered])
                told.follow(offered, promises)
                admitted(chain, promises)
                for _ in range(dice.randrange(1, 8)):
                    engine.step()
                    clock.time_ms += dice.randrange(700)
            if life == LIVES - 1:
                clock.time_ms += 10_000
                while engine.step():
                    clock.time_ms += 1
        nothing_owed(chain)
        assert all(promise.done() for promise in told.promises)
        assert len(told.outcomes) == len(told.promises)
        happened += engine.happened
        for identifier, outcome in told.outcomes:
            outcomes.setdefault(identifier, []).append(outcome)
        lost = {identifier for identifier, outcome in told.outcomes if outcome in ("chain.stopped", "chain.closed")}
        again += [item for item in submitted if item.id in lost]
    with place.open(Idle()) as chain:
        end = standing(chain)
        assert chain.fsck().ok
    return History(place.genesis, recording, submitted, end, happened, outcomes)


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> list[History]:
    folder = tmp_path_factory.mktemp("histories")
    return [simulate(seed, folder / str(seed)) for seed in SEEDS]


def by_verbs(history: History, folder: Path) -> Standing:
    """A fresh chain, driven call by call."""
    with Place(folder, history.genesis).open(Idle()) as chain:
        for batch, result in zip(history.recording.batches, history.recording.results, strict=True):
            assert chain.validate(batch)
            assert chain.execute(batch) == result
            if result.leaves:
                assert chain.commit().height == result.height
        answer = chain.query(bytes(32))
        published = chain.published
        offer = SnapshotOffer(published.height, published.tree_size, published.state_root)
        assert (answer.height, answer.stored, chain.snapshot()) == (published.height, None, (offer,))
        return standing(chain)


def by_solo(history: History, folder: Path) -> Standing:
    """A fresh chain, driven by solo's two threads through the decided batches."""
    with Place(folder, history.genesis).open(played(solo.SoloEngine(), history.recording)) as chain:
        chain._engine.wake()  # type: ignore[union-attr]
    assert chain.failure is None
    return reopened(chain, folder)


def by_fake(history: History, folder: Path, seed: int) -> Standing:
    """A fresh chain, to which the fake delivers everything again, crashing now and then on the way."""
    place = Place(folder, history.genesis)
    crashing = replace(FAULTS, crash=5)
    for life in range(200):
        engine = FakeEngine(seed * 1000 + life, faults=crashing, recording=history.recording, stepped=True)
        with place.open(engine) as chain:
            for _ in range(len(history.recording) + 1):
                if not engine.step():
                    break
        if not engine.crashed:
            break
        crashing = replace(crashing, crash=max(0, crashing.crash - 1))
    return reopened(chain, folder)


def reopened(chain: Chain, folder: Path) -> Standing:
    keys = chain._keys
    with Chain.open(
        folder / "chain", keys=keys, signer=SIGNER, runtime=Runtime(REGISTRY), engine=Idle(), trust_clock=True
    ) as again:
        return standing(again)


WAYS: dict[str, Callable[[History, Path, int], Standing]] = {
    "verbs": lambda history, folder, _: by_verbs(history, folder),
    "solo": lambda history, folder, _: by_solo(history, folder),
    "fake": by_fake,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_decided_blocks_give_the_same_roots(histories: list[History], way: str, tmp_path: Path) -> None:
    for seed, history in zip(SEEDS, histories, strict=True):
        decided = len(history.recording)
        assert WAYS[way](history, tmp_path / str(seed), seed) == history.end, f"seed {seed}"
        assert len(history.recording) == decided, f"seed {seed}: nothing new was decided"


def test_the_histories_hold_everything_that_may_happen(histories: list[History]) -> None:
    happened: Counter[str] = sum((history.happened for history in histories), Counter())
    wanted = {"reordered", "delayed", "abandoned", "repeated", "executed ahead", "redelivered"}
    wanted |= {"crashed before execution", "crashed before commit", "copies refused"}
    assert wanted <= set(happened)
    receipts = [Receipt.decode(data) for history in histories for data in history.end.receipts]
    codes = {receipt.code for receipt in receipts}
    assert {0, "relay.asked_to", "contract.broken", "contract.unknown_method"} <= codes
    told = {outcome for history in histories for listed in history.outcomes.values() for outcome in listed}
    assert {"transaction.expired", "chain.stopped"} <= told
    known = {item.id for history in histories for item in history.submitted}
    assert any(receipt.id not in known for receipt in receipts), "no timer ran"


def test_each_transaction_is_executed_at_most_once_and_told_the_truth(histories: list[History]) -> None:
    """An outcome is a receipt of the log, a refusal of what is not in it, or says that nobody knows yet."""
    for seed, history in zip(SEEDS, histories, strict=True):
        executed = [Receipt.decode(data) for data in history.end.receipts]
        by_id = {receipt.id: receipt for receipt in executed}
        assert len(by_id) == len(executed), f"seed {seed}: something was executed twice"
        for transaction in history.submitted:
            listed = history.outcomes[transaction.id]
            receipts = [outcome for outcome in listed if isinstance(outcome, Receipt)]
            assert len(receipts) <= 1, f"seed {seed}"
            assert all(receipt == by_id[transaction.id] for receipt in receipts), f"seed {seed}"
            if "transaction.replayed" in listed:  # of something sent again after a crash that it had survived
                assert transaction.id in by_id, f"seed {seed}"
                assert "chain.stopped" in listed, f"seed {seed}: a transaction was called a replay of itself"
            if "transaction.expired" in listed:
                assert transaction.id not in by_id, f"seed {seed}"


def test_a_seed_decides_the_same_again(tmp_path: Path) -> None:
    first, second = (simulate(7, tmp_path / name) for name in ("first", "second"))
    assert first.recording.batches == second.recording.batches
    assert first.end == second.end
    other = simulate(8, tmp_path / "third")
    assert other.end != first.end


def test_a_block_that_gives_another_result_stops_the_chain(tmp_path: Path, histories: list[History]) -> None:
    history = histories[0]
    changed = Recording()
    for position, (batch, result) in enumerate(zip(history.recording.batches, history.recording.results, strict=True)):
        changed.decide(batch)
        changed.note(position, replace(result, app_hash=bytes(32)) if position == 1 else result)
    engine = FakeEngine(recording=changed, stepped=True, faults=Faults(0, 0, 0, 0, 0, 0))
    with Place(tmp_path / "other", history.genesis).open(engine) as chain:
        while engine.step():
            pass
        assert isinstance(chain.failure, CorruptionError)
        assert chain.failure.code == "engine.other_result"


# ── votes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def batch_of(chain: Chain, items: Sequence[Admitted], time_ms: int | None = None) -> Batch:
    return Batch(1, chain.published.time_ms + 1 if time_ms is None else time_ms, SIGNER.public_key, tuple(items))


def test_no_vote_for_a_wrongly_signed_item_or_another_chains(tmp_path: Path) -> None:
    dice = random.Random(1)
    genesis = genesis_at(START_MS)
    with Place(tmp_path / "one", genesis).open(Idle()) as chain:
        expires = START_MS + 60_000
        good = [call_of(dice, chain.chain_id, "counter", "add", {1: "a"}, expires) for _ in range(3)]
        items = [Admitted(item, (), 2, len(item)) for item in good]
        assert chain.validate(batch_of(chain, items))
        strange = call_of(dice, "toy-" + "0" * 32, "counter", "add", {1: "a"}, expires)
        unknown = call_of(dice, chain.chain_id, "nowhere", "add", {1: "a"}, expires)
        liar = decode_transaction(forged(good[1]))
        for bad in (strange, unknown, liar):
            assert not chain.validate(batch_of(chain, [items[0], Admitted(bad, (), 2, len(bad)), items[2]]))


def test_no_vote_for_a_block_out_of_time_or_too_large(tmp_path: Path) -> None:
    dice = random.Random(2)
    with Place(tmp_path / "one", genesis_at(START_MS)).open(Idle()) as chain:
        call = call_of(dice, chain.chain_id, "counter", "add", {1: "a"}, START_MS + 60_000)
        item = Admitted(call, (), 2, len(call))
        assert chain.validate(batch_of(chain, [item]))
        assert not chain.validate(batch_of(chain, [item], chain.published.time_ms))
        assert not chain.validate(batch_of(chain, [item] * (MAX_BLOCK_ITEMS + 1)))
        chain.execute(batch_of(chain, [item], START_MS + 10))
        assert not chain.validate(batch_of(chain, [item], START_MS + 10))


# ── any engine ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> Engine:
    return build_engine(request.param)


def test_an_engine_keeps_every_promise_once_and_time_grows(engine: Engine, tmp_path: Path) -> None:
    dice = random.Random(3)
    now = wall_ms()
    place = Place(tmp_path / "one", genesis_at(now - 1000))
    told = Told()
    recording = Recording()
    with place.open(recorded(engine, recording)) as chain:
        calls = [
            call_of(dice, chain.chain_id, "counter", "add", {1: dice.choice("abc")}, now + 60_000, dice.randrange(3))
            for _ in range(200)
        ]
        failing = [call_of(dice, chain.chain_id, "relay", "wrong", {1: 5}, now + 60_000) for _ in range(5)]
        late = [call_of(dice, chain.chain_id, "counter", "add", {1: "d"}, now - 1) for _ in range(5)]
        for start in range(0, 200, 20):
            part = calls[start : start + 20]
            told.follow(part, chain.submit_many([Submission(item) for item in part]))
        told.follow(failing + late, chain.submit_many([Submission(item) for item in failing + late]))
        for promise in told.promises:
            assert outcome_of(promise, 60) != "receipt.timeout"
        assert chain.published.height > 0
        nothing_owed(chain)
        replay = chain.submit(calls[0])
        with pytest.raises(EhrfastError) as replayed:
            replay.result(timeout=30)
        assert replayed.value.code == "transaction.replayed"
        with pytest.raises(EhrfastError) as liar:
            chain.submit(forged(calls[0])).result(timeout=30)
        assert liar.value.code == "signature.invalid"
    outcomes = dict(told.outcomes)
    assert len(told.outcomes) == len(outcomes) == 210
    assert {outcomes[call.id].applied for call in calls} == {True}  # type: ignore[union-attr]
    assert {outcomes[call.id].code for call in failing} == {"contract.broken"}  # type: ignore[union-attr]
    assert {outcomes[call.id] for call in late} == {"transaction.expired"}
    with place.open(Idle()) as chain:
        end = standing(chain)
        assert chain.fsck().ok
        assert sum(chain.view("counter", "value", {"name": name}) for name in "abc") == 200  # type: ignore[misc]
    assert list(end.times) == sorted(set(end.times))
    history = History(place.genesis, recording, calls, end, Counter(), {})
    assert by_verbs(history, tmp_path / "verbs") == end
    assert by_solo(history, tmp_path / "solo") == end
    assert by_fake(history, tmp_path / "fake", 5) == end


def test_an_engine_runs_a_timer_nobody_asks_for(engine: Engine, tmp_path: Path) -> None:
    dice = random.Random(4)
    now = wall_ms()
    with Place(tmp_path / "one", genesis_at(now - 1000)).open(engine) as chain:
        due = wall_ms() + 300
        chain.submit(call_of(dice, chain.chain_id, "counter", "remind", {1: "a", 2: due}, now + 60_000)).result(60)
        seen = chain.subscribe(lambda _: None)
        seen.wait(chain.published.height + 1, timeout=60)
        assert chain.published.time_ms >= due
        assert chain.view("counter", "value", {"name": "a"}) == 1


def test_closing_keeps_what_was_submitted_and_refuses_what_comes_later(engine: Engine, tmp_path: Path) -> None:
    dice = random.Random(5)
    now = wall_ms()
    place = Place(tmp_path / "one", genesis_at(now - 1000))
    chain = place.open(engine)
    call = call_of(dice, chain.chain_id, "counter", "add", {1: "a"}, now + 60_000)
    early = call_of(dice, chain.chain_id, "counter", "add", {1: "a"}, now + WINDOW_MS + 60_000)
    promise, waiting = chain.submit_many([Submission(call), Submission(early)])
    chain.close()
    assert promise.result(timeout=0).applied
    assert outcome_of(waiting) == "chain.closed"
    nothing_owed(chain)
    with pytest.raises(EhrfastError) as closed:
        chain.submit(call)
    assert closed.value.code == "chain.closed"
    with place.open(Idle()) as again:
        assert again.find_receipt(call.id).applied


def test_an_unknown_engine_is_refused_and_so_are_faults_that_never_end() -> None:
    with pytest.raises(InvalidInputError) as unknown:
        build_engine("nobody")
    assert unknown.value.code == "engine.unknown"
    for bad in ({"delay": 100}, {"abandon": 100}, {"crash": 101}, {"reorder": -1}):
        with pytest.raises(InvalidInputError) as refused:
            Faults(**bad)
        assert refused.value.code == "engine.bad_faults"
