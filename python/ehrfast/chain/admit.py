"""Admission: the checks that need no state. Before: signed bytes. After: items in lanes.

A bad transaction gets a stable code and never stops its neighbours. Whether a key may do what it asks is state,
and judged only when the transaction executes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ehrfast._core import SealedPack, Transaction, admit_decoded, admit_transactions
from ehrfast.consensus.engine import Admitted

MAX_TRANSACTION_BYTES: Final = 64 * 1024
MAX_RECORDS_TRANSACTION_BYTES: Final = 256 * 1024
MAX_PACK_BYTES: Final = 4 * 1024 * 1024
"""What the packs of one transaction bring into the log: wraps, and the items that are not blobs."""
_LISTS_RECORDS: Final = frozenset({"records", "access"})


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client hands in: the signed bytes (or an already decoded transaction) and its packs."""

    transaction: Transaction | bytes
    packs: tuple[SealedPack, ...] = ()


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What one chain admits.

    Args:
        chain_id: the only chain id accepted.
        contracts: names of the contracts that exist.
        lane: the lane a contract's method may use, of the one claimed.
    """

    chain_id: str
    contracts: Collection[str]
    lane: Callable[[str, str, int], int]


def admit(submissions: Sequence[Submission], rules: AdmissionRules) -> list[Admitted | str]:
    """Checks many submissions at once; decoding, hashing and signatures run in Rust without the GIL.

    Returns:
        In the same order an admitted item, or the stable code of what is wrong.
    """
    raw = [(i, s.transaction) for i, s in enumerate(submissions) if isinstance(s.transaction, bytes)]
    decoded = [(i, s.transaction) for i, s in enumerate(submissions) if isinstance(s.transaction, Transaction)]
    verdicts: list[Transaction | str] = [""] * len(submissions)
    if raw:
        answers = admit_transactions([item for _, item in raw], rules.chain_id, MAX_RECORDS_TRANSACTION_BYTES)
        for (i, _), answer in zip(raw, answers, strict=True):
            verdicts[i] = answer
    if decoded:
        codes = admit_decoded([item for _, item in decoded], rules.chain_id, MAX_RECORDS_TRANSACTION_BYTES)
        for (i, item), code in zip(decoded, codes, strict=True):
            verdicts[i] = item if code is None else code
    return [_place(verdict, s.packs, rules) for verdict, s in zip(verdicts, submissions, strict=True)]


def _place(verdict: Transaction | str, packs: tuple[SealedPack, ...], rules: AdmissionRules) -> Admitted | str:
    if isinstance(verdict, str):
        return verdict
    contract = verdict.contract
    if contract not in rules.contracts:
        return "contract.unknown"
    size = len(verdict)
    if size > MAX_TRANSACTION_BYTES and contract not in _LISTS_RECORDS:
        return "transaction.too_large"
    attachments = verdict.attachments
    if attachments or packs:
        if attachments != tuple((pack.root, pack.wraps_root) for pack in packs):
            return "pack.root_mismatch"
        carried = sum(pack.size for pack in packs)
        if carried > MAX_PACK_BYTES:
            return "pack.too_large"
        size += carried
    return tuple.__new__(Admitted, (verdict, packs, rules.lane(contract, verdict.method, verdict.lane), size))
