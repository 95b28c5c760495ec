"""fsck: every hash, root, signature and state value of a chain derived again from the bytes on disk.

Trusts nothing in memory but the keys. Goes on after a fault, so one report names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ehrfast._core import (
    Frame,
    Log,
    Trie,
    admit_transactions,
    blake3_digest,
    transaction_leaf,
)
from ehrfast.chain.admit import MAX_RECORDS_TRANSACTION_BYTES
from ehrfast.chain.chain import Chain
from ehrfast.chain.recover import head_of
from ehrfast.errors import EhrfastError
from ehrfast.model.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Fault:
    """One place that is not what was written."""

    file: str
    offset: int
    kind: str
    height: int | None


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check found."""

    blocks: int
    transactions: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


def fsck(chain: Chain, progress: Callable[[int, int], None] | None = None) -> FsckReport:
    """Checks a chain up to its published height."""
    checker = _Checker(chain)
    total = chain.published.height + 1
    for height in range(total):
        checker.block(height)
        if progress is not None:
            progress(height + 1, total)
    checker.finish()
    return FsckReport(total, checker.transactions, tuple(checker.faults))


class _Checker:
    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._log = Log()
        self._trie = Trie()
        self.faults: list[Fault] = []
        self.transactions = 0

    def block(self, height: int) -> None:
        file, offset = self._chain.segments.locate(height)
        try:
            frame = self._chain.segments.read(height)
            kinds = [*self._links(frame, height), *self._calls(frame), *self._state(frame), *self._packs(frame)]
        except EhrfastError as error:
            kinds = [error.code]
        self.faults += [Fault(file, offset, kind, height) for kind in kinds]

    def finish(self) -> None:
        published = self._chain.published
        if self._log.root() != published.log_root:
            self.faults.append(Fault("checkpoint", 0, "log.wrong_root", published.height))
        if self._trie.root != published.state_root:
            self.faults.append(Fault("checkpoint", 0, "state.wrong_root", published.height))
        database = self._chain.state_trie()
        if database.root != self._trie.root:
            self.faults.append(Fault("state", 0, "state.database_differs", published.height))

    def _links(self, frame: Frame, height: int) -> Sequence[str]:
        head = head_of(frame)
        kinds = []
        if head.height != height or head.chain_id != self._chain.chain_id:
            kinds.append("log.wrong_block")
        if head.first_index != self._log.tree_size or head.previous_root != self._log.root():
            kinds.append("log.broken_link")
        self._log.append(frame.leaves)
        return kinds

    def _calls(self, frame: Frame) -> Sequence[str]:
        received = [item for item in frame.transactions if item is not None]
        verdicts = admit_transactions(received, self._chain.chain_id, MAX_RECORDS_TRANSACTION_BYTES)
        kinds = [f"transaction.{verdict}" for verdict in verdicts if isinstance(verdict, str)]
        sound = iter([verdict for verdict in verdicts if not isinstance(verdict, str)])
        self.transactions += len(received)
        first = head_of(frame).first_index
        for number, receipt in enumerate(frame.receipts):
            leaf = frame.leaves[number]
            decoded = Receipt.decode(receipt)
            if decoded.id != leaf[1:33] or decoded.index != first + number or decoded.height != head_of(frame).height:
                kinds.append("receipt.wrong_place")
            if leaf[:1] == b"\x01" and len(received) == len(frame.transactions) and not kinds:
                transaction = next(sound)
                if transaction_leaf(transaction.id, transaction.received_digest, receipt) != leaf:
                    kinds.append("log.wrong_leaf")
            elif leaf[-32:] != blake3_digest(receipt):
                kinds.append("log.wrong_leaf")
        return kinds

    def _state(self, frame: Frame) -> Sequence[str]:
        self._trie = self._trie.update(frame.write_set)
        return () if self._trie.root == head_of(frame).state_root else ("state.wrong_root",)

    def _packs(self, frame: Frame) -> Sequence[str]:
        return [
            "pack.root_mismatch" for root in frame.pack_roots if frame.pack(root).root != root
        ]


