"""Decided batches and what executing them gave: what an engine delivers again, and what two engines are compared by.

Batch after batch must give the result it gave before; anything else stops whoever drives.
"""

from __future__ import annotations

from collections.abc import Callable

from ehrfast.consensus.engine import (
    Application,
    Batch,
    Committed,
    Engine,
    Executed,
    QueryAnswer,
    SnapshotOffer,
)
from ehrfast.errors import CorruptionError

_ANY_PATH = bytes(32)


class Recording:
    """Batches in the order they were decided, each with its result once it was executed."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._results: list[Executed] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, position: int) -> Batch:
        return self._batches[position]

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All decided batches."""
        return tuple(self._batches)

    @property
    def results(self) -> tuple[Executed, ...]:
        """The results known so far; a crash leaves the last batch without one."""
        return tuple(self._results)

    def decide(self, batch: Batch) -> None:
        """Adds a batch that will be executed, whatever happens."""
        self._batches.append(batch)

    def note(self, position: int, executed: Executed) -> None:
        """Keeps the result of a batch, or compares it with the one it had.

        Raises:
            CorruptionError: ``engine.other_result``: the same batch gave something else.
        """
        if position == len(self._results):
            self._results.append(executed)
        elif self._results[position] != executed:
            raise CorruptionError("engine.other_result", {"position": position, "height": executed.height})

    def position_after(self, height: int) -> int:
        """The first batch that a chain at this height has not committed.

        Batches without a leaf that follow the height are among what is left: executing them again changes nothing.
        """
        for position, executed in enumerate(self._results):
            if executed.height == height:
                return position + 1
        return 0


def committed_height(application: Application) -> int:
    """The height the application answers queries at, the only one that survives a crash."""
    return application.query(_ANY_PATH).height


def recorded(engine: Engine, recording: Recording) -> Engine:
    """The same engine, with every batch it executes kept."""
    return _Wrapped(engine, lambda application: _Recorder(application, recording))


def played(engine: Engine, recording: Recording) -> Engine:
    """The same engine, with decided batches in place of what waits in the lanes: it drives, but decides nothing."""
    return _Wrapped(engine, lambda application: _Player(application, recording, engine))


class _Wrapped:
    def __init__(self, engine: Engine, wrap: Callable[[Application], Application]) -> None:
        self.name = engine.name
        self._engine = engine
        self._wrap = wrap

    def start(
        self,
        application: Application,
        *,
        clock: Callable[[], int],
        next_due: Callable[[], int | None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._engine.start(self._wrap(application), clock=clock, next_due=next_due, failed=failed)

    def wake(self) -> None:
        self._engine.wake()

    def stop(self) -> None:
        self._engine.stop()


class _Recorder:
    def __init__(self, application: Application, recording: Recording) -> None:
        self._application = application
        self._recording = recording

    def propose(self, time_ms: int) -> Batch | None:
        return self._application.propose(time_ms)

    def validate(self, batch: Batch) -> bool:
        return self._application.validate(batch)

    def execute(self, batch: Batch) -> Executed:
        self._recording.decide(batch)
        executed = self._application.execute(batch)
        self._recording.note(len(self._recording) - 1, executed)
        return executed

    def commit(self) -> Committed:
        return self._application.commit()

    def snapshot(self) -> tuple[SnapshotOffer, ...]:
        return self._application.snapshot()

    def query(self, path: bytes) -> QueryAnswer:
        return self._application.query(path)


class _Player(_Recorder):
    def __init__(self, application: Application, recording: Recording, engine: Engine) -> None:
        super().__init__(application, recording)
        self._engine = engine
        self._next = recording.position_after(committed_height(application))

    def propose(self, time_ms: int) -> Batch | None:
        """The next decided batch, at the time it was decided for."""
        if self._next == len(self._recording):
            return None
        self._engine.wake()
        return self._recording[self._next]

    def execute(self, batch: Batch) -> Executed:
        executed = self._application.execute(batch)
        self._recording.note(self._next, executed)
        self._next += 1
        return executed
