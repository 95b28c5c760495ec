"""The engine port: six verbs by which any consensus engine drives one chain.

The application (a chain) is the same code under every engine; the same decided blocks give the same log root.
An engine never looks into a transaction beyond its size and its lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ehrfast._core import SealedPack, Transaction


class Admitted(NamedTuple):
    """A transaction that passed every check that needs no state, with the packs it brought."""

    transaction: Transaction
    packs: tuple[SealedPack, ...]
    lane: int
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What an engine decided: transactions in order, at an engine height and time.

    Args:
        engine_height: the engine's own counter.
        time_ms: block time, strictly above the last block's.
        proposer: public key of the proposing node.
        items: the transactions in their final order.
    """

    engine_height: int
    time_ms: int
    proposer: bytes
    items: tuple[Admitted, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """The result of executing a batch, before it is durable.

    Args:
        height: our height, or None when the batch added no leaf.
        app_hash: SHA-256 of the checkpoint body after the batch.
        leaves: leaves added, the block leaf included.
    """

    height: int | None
    app_hash: bytes
    leaves: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A durable, published block."""

    height: int | None
    retain_height: int


@dataclass(frozen=True, slots=True)
class SnapshotOffer:
    """A state another node may be built from."""

    height: int
    tree_size: int
    state_root: bytes


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """A published state value with its proof."""

    height: int
    stored: bytes | None
    proof: bytes


class Application(Protocol):
    """What an engine drives. Calls come one at a time, except that ``commit`` of block k-1 may overlap ``execute`` of
    k."""

    def propose(self, time_ms: int) -> Batch | None:
        """Chooses the next batch out of the lanes; None when nothing is waiting and no timer is due."""
        ...

    def validate(self, batch: Batch) -> bool:
        """Whether the batch may be voted for: every item decodes, is signed and fits."""
        ...

    def execute(self, batch: Batch) -> Executed:
        """Runs the batch. Success does not mean durable: only ``commit`` does."""
        ...

    def commit(self) -> Committed:
        """Makes the oldest executed batch durable and publishes it."""
        ...

    def snapshot(self) -> tuple[SnapshotOffer, ...]:
        """The states this node can hand to a new one, the newest first."""
        ...

    def query(self, path: bytes) -> QueryAnswer:
        """A published state value by trie path, with its proof."""
        ...


class Engine(Protocol):
    """What a chain asks of its engine."""

    name: str

    def start(
        self,
        application: Application,
        *,
        clock: Callable[[], int],
        next_due: Callable[[], int | None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Begins to drive the application.

        Args:
            clock: Unix milliseconds.
            next_due: when something will be due without anybody submitting (a timer), or None.
            failed: called once if the engine stops by itself.
        """
        ...

    def wake(self) -> None:
        """Tells that the lanes hold something, or that an earlier timer exists."""
        ...

    def stop(self) -> None:
        """Finishes what is executed, starts nothing new, and returns when idle."""
        ...


_ENGINES: dict[str, Callable[[], Engine]] = {}


def register_engine(name: str, build: Callable[[], Engine]) -> None:
    """Adds an engine under its name; the conformance suite runs over all of them."""
    _ENGINES[name] = build


def engine_names() -> Sequence[str]:
    """The registered engines, by name."""
    return sorted(_ENGINES)


def build_engine(name: str) -> Engine:
    """A new engine of that name.

    Raises:
        InvalidInputError: ``engine.unknown``.
    """
    from ehrfast.errors import InvalidInputError

    if name not in _ENGINES:
        raise InvalidInputError("engine.unknown", {"engine": name})
    return _ENGINES[name]()


def total_bytes(items: Iterable[Admitted]) -> int:
    """Bytes of transactions and their packs."""
    return sum(item.size for item in items)
