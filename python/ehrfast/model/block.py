"""A published block, as whoever follows a chain sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ehrfast._core import SealedPack, Transaction
from ehrfast.model.receipt import Receipt


@dataclass(frozen=True, slots=True)
class PublishedBlock:
    """One block as a subscriber sees it.

    Args:
        calls: (transaction, receipt) in leaf order; timer runs have no transaction.
        pack: the sealed pack with that root.
    """

    height: int
    time_ms: int
    calls: tuple[tuple[Transaction | None, Receipt], ...] = field(repr=False)
    pack: Callable[[bytes], SealedPack] = field(repr=False)
