"""A published block, as whoever follows a chain sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ehrfast._core import SealedPack, StoredPack, Transaction
from ehrfast.model.receipt import Receipt


@dataclass(frozen=True, slots=True)
class PublishedBlock:
    """One block as a subscriber sees it.

    Args:
        calls: (transaction, receipt) in leaf order; timer runs and what was erased have no transaction.
        pack: the sealed pack with that root, or what the log still has of it.
    """

    height: int
    time_ms: int
    calls: tuple[tuple[Transaction | None, Receipt], ...] = field(repr=False)
    pack: Callable[[bytes], SealedPack | StoredPack] = field(repr=False)
