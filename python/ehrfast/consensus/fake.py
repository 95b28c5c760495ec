"""The fake engine: everything a real one may do to a chain, in an order drawn from a seed.

It reorders, delays and abandons proposals, decides an item twice, executes ahead of the commit, and stops between the
two; after a restart it delivers again whatever was decided and not committed. For simulations, never for records.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from ehrfast.consensus.engine import Admitted, Application, Batch, register_engine, total_bytes
from ehrfast.consensus.recording import Recording, committed_height
from ehrfast.errors import InvalidInputError, UnavailableError

_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each thing happens, in percent.

    Args:
        reorder: a batch is shuffled.
        delay: an item waits for a later batch; below 100.
        abandon: a batch is proposed and validated, and then not decided; below 100.
        repeat: a batch holds an item decided before.
        ahead: the next batch is executed before this one is committed.
        crash: the engine stops before an execution, or between execution and commit.
    """

    reorder: int = 50
    delay: int = 20
    abandon: int = 20
    repeat: int = 20
    ahead: int = 50
    crash: int = 0

    def __post_init__(self) -> None:
        chances = (self.reorder, self.delay, self.abandon, self.repeat, self.ahead, self.crash)
        if not all(0 <= chance <= 100 for chance in chances) or 100 in (self.delay, self.abandon):
            raise InvalidInputError("engine.bad_faults")


class FakeEngine:
    """Drives one chain through one life. The same seed and the same calls decide the same batches.

    Args:
        seed: of every choice.
        faults: how often what happens.
        recording: what was decided in earlier lives of the chain; grows.
        clock: Unix milliseconds in place of the chain's clock.
        stepped: no thread of its own; whoever simulates calls `step`.
    """

    name = "fake"

    def __init__(
        self,
        seed: int = 0,
        *,
        faults: Faults | None = None,
        recording: Recording | None = None,
        clock: Callable[[], int] | None = None,
        stepped: bool = False,
    ) -> None:
        self.recording = Recording() if recording is None else recording
        self.happened: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._faults = faults or Faults()
        self._own_clock = clock
        self._stepped = stepped
        self._pool: list[Admitted] = []
        self._recent: deque[Admitted] = deque(maxlen=_REMEMBERED)
        self._room = (1, 1)
        self._proposer = b""
        self._uncommitted = 0
        self._stopped = False
        self._draining = False
        self._condition = threading.Condition()
        self._woken = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ── what a chain asks ───────────────────────────────────────────────────────────────────────────────────────

    def start(
        self,
        application: Application,
        *,
        clock: Callable[[], int],
        next_due: Callable[[], int | None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Begins to drive, first with what was decided and not committed; see `Engine.start`."""
        self._application = application
        self._clock = self._own_clock or clock
        self._next_due = next_due
        self._failed = failed
        self._position = self.recording.position_after(committed_height(application))
        self._last = self.recording[-1] if len(self.recording) else Batch(0, 0, b"", ())
        if not self._stepped:
            self._thread = threading.Thread(target=self._run, name="ehrfast-fake", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Something waits in the lanes, or the earliest timer moved."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Decides and commits what waits, without faults, unless it has crashed; see `Engine.stop`."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._draining = True
        while self.step():
            pass

    @property
    def crashed(self) -> bool:
        """Whether it stopped by itself."""
        return self._stopped

    # ── one round ───────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> bool:
        """One round: a batch delivered again, decided or abandoned, or a commit. False when nothing is left to do."""
        if self._stopped:
            return False
        try:
            return self._round()
        except BaseException as error:  # handed to the chain, which refuses everything after it
            self._stopped = True
            self._failed(error)
            return False

    def _round(self) -> bool:
        if self._position < len(self.recording):
            self.happened["redelivered"] += 1
            self._deliver(self.recording[self._position])
            return True
        proposed = self._application.propose(self._clock())
        if proposed is not None:
            self._pool += proposed.items
            size = total_bytes(proposed.items)
            self._proposer = proposed.proposer
            self._room = (max(self._room[0], len(proposed.items)), max(self._room[1], size))
        due = proposed is not None and not proposed.items and not self._draining
        if not self._pool and not due:
            return self._commit_one()
        batch = self._choose(proposed)
        if not batch.items and not due:
            return True
        if not self._application.validate(batch):
            raise UnavailableError("engine.invalid_proposal", {"engine_height": batch.engine_height})
        if self._chance("abandoned", self._faults.abandon):
            return True
        chosen = {id(item) for item in batch.items}
        self._pool = [item for item in self._pool if id(item) not in chosen]
        self.recording.decide(batch)
        self._last = batch
        self._deliver(batch)
        self._recent += batch.items
        return True

    def _choose(self, proposed: Batch | None) -> Batch:
        waiting = list(self._pool)
        if len(waiting) > 1 and self._chance("reordered", self._faults.reorder):
            self._dice.shuffle(waiting)
        items: list[Admitted] = []
        size = 0
        for item in waiting:
            full = len(items) == self._room[0] or size + item.size > self._room[1]
            if not full and not self._chance("delayed", self._faults.delay):
                items.append(item)
                size += item.size
        if self._recent and len(items) < self._room[0] and self._chance("repeated", self._faults.repeat):
            again = self._dice.choice(self._recent)
            if size + again.size <= self._room[1]:
                items.insert(self._dice.randrange(len(items) + 1), again)
        time_ms = self._clock() if proposed is None else proposed.time_ms
        engine_height = 0 if proposed is None else proposed.engine_height
        return Batch(
            engine_height=max(self._last.engine_height + 1, engine_height),
            time_ms=max(self._last.time_ms + 1, time_ms),
            proposer=self._proposer,
            items=tuple(items),
        )

    def _deliver(self, batch: Batch) -> None:
        if self._chance("crashed before execution", self._faults.crash):
            raise UnavailableError("engine.crashed")
        executed = self._application.execute(batch)
        self.recording.note(self._position, executed)
        self._position += 1
        if executed.leaves:
            self._uncommitted += 1
        if self._uncommitted and self._chance("crashed before commit", self._faults.crash):
            raise UnavailableError("engine.crashed")
        if self._uncommitted > 1:
            self._commit_one()
        if self._uncommitted and not self._chance("executed ahead", self._faults.ahead):
            self._commit_one()

    def _commit_one(self) -> bool:
        if not self._uncommitted:
            return False
        self._application.commit()
        self._uncommitted -= 1
        return True

    def _chance(self, what: str, percent: int) -> bool:
        if self._draining or self._dice.randrange(100) >= percent:
            return False
        self.happened[what] += 1
        return True

    # ── its thread ──────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._stopped:
            while not self._stopping and self.step():
                pass
            with self._condition:
                if not self._woken and not self._stopping and not self._stopped:
                    self._condition.wait(self._timer_wait())
                self._woken = False
                if self._stopping:
                    return

    def _timer_wait(self) -> float | None:
        due = self._next_due()
        return None if due is None else min(max(due - self._clock(), 1) / 1000, 3600.0)


register_engine(FakeEngine.name, FakeEngine)
