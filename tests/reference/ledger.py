"""A chain reduced to what contracts see: blocks of calls over a state view, without signatures, log or store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ehrfast.contracts import BlockContext, Outcome, Registry, Runtime

from tests.reference.state import StateView

CHAIN_ID = "toy-" + "0" * 32


def named_bytes(name: str, size: int = 16) -> bytes:
    """Bytes that stand for a random id, the same for a name."""
    return hashlib.sha256(name.encode()).digest()[:size]


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction as execution sees it."""

    sender: bytes
    contract: str
    method: str
    args: Mapping[int, object]
    id: bytes
    salt: bytes
    lane: int = 2
    attachments: tuple[tuple[bytes, bytes], ...] = ()

    def __len__(self) -> int:
        return 300


@dataclass(frozen=True, slots=True)
class Organisation:
    id: bytes
    admins: tuple[tuple[bytes, bytes], ...]
    threshold: int = 1


@dataclass(frozen=True, slots=True)
class Founding:
    organisations: tuple[Organisation, ...] = ()


@dataclass(slots=True)
class Ledger:
    """Blocks one after the other; `view` is the overlay over all of them."""

    registry: Registry
    founding: Founding = field(default_factory=Founding)
    work_limit: int = 2_000_000
    view: Any = field(default_factory=StateView)
    time_ms: int = 1_000_000
    height: int = 0
    index: int = 2
    calls: int = 0
    runtime: Runtime = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = Runtime(self.registry, work_limit=self.work_limit)
        self.runtime.genesis(self.view, self.block, self.founding)

    @property
    def block(self) -> BlockContext:
        return BlockContext(CHAIN_ID, self.height, self.time_ms)

    def next_block(self, time_ms: int | None = None) -> None:
        self.height += 1
        self.time_ms = self.time_ms + 1_000 if time_ms is None else time_ms

    def call(
        self,
        contract: str,
        method: str,
        arguments: object = None,
        *,
        sender: bytes = bytes(32),
        attachments: Sequence[tuple[bytes, bytes]] = (),
    ) -> Outcome:
        """Runs a call in the present block."""
        args = self.runtime.encode_arguments(contract, method, {} if arguments is None else arguments)
        return self.raw(contract, method, args, sender=sender, attachments=attachments)

    def raw(
        self,
        contract: str,
        method: str,
        args: Mapping[int, object],
        *,
        sender: bytes = bytes(32),
        attachments: Sequence[tuple[bytes, bytes]] = (),
    ) -> Outcome:
        """The same with arguments as a transaction carries them, checked or not."""
        self.calls += 1
        identifier = named_bytes(f"transaction {self.calls}", 32)
        salt = named_bytes(f"salt {self.calls}")
        call = Call(
            sender, contract, method, MappingProxyType(dict(args)), identifier, salt, attachments=tuple(attachments)
        )
        outcome = self.runtime.execute(self.view, call, self.block, self.index)
        self.index += 1
        return outcome

    def timers(self, limit: int = 64) -> list[tuple[bytes, Outcome]]:
        outcomes = self.runtime.run_timers(self.view, self.block, self.index, limit=limit)
        self.index += len(outcomes)
        return outcomes

    def ask(self, contract: str, view: str, **arguments: object) -> Any:
        return self.runtime.view(self.view, contract, view, arguments, block=self.block)
