"""The audit trail: sealed audit records appended by number, so that a missing one is visible to everyone.

Owns one counter per signing key; refuses a gap, a repeat and every record that is not of class audit.
The rows themselves are records like any other, put by a nested call with the sender's rights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ehrfast.contracts.contract import Code, Context, Contract, Digest, Id, Natural, PublicKey, View

contract = Contract("access", version=1)

AUDIT = "audit"


class Row(NamedTuple):
    """One audit record, with the columns of a row of `records.put`."""

    record: Id
    version: Natural
    subject: Id
    class_: Code
    epoch: Id
    commitment: Digest
    attachment: Natural
    position: Natural
    place: Natural


class Epoch(NamedTuple):
    """A class key coming into force, with the columns of `records.post_epochs`."""

    subject: Id
    class_: Code
    epoch: Id
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class Append:
    """The next audit records of the key that signs.

    sequence: 1 for its first append, else the last one + 1
    rows: all of class audit, version 1
    epochs: posted before the rows are judged
    """

    sequence: Natural
    rows: tuple[Row, ...]
    epochs: tuple[Epoch, ...] = ()


@contract.event
@dataclass(frozen=True, slots=True)
class Appended:
    sequence: Natural
    count: Natural


@contract.method(claimable="emergency")
def append(ctx: Context, args: Append) -> None:
    """Appends audit records; the sequence counts appends, without a gap."""
    last = ctx.get(("sequence", ctx.sender)) or 0
    if args.sequence != last + 1:
        ctx.fail("access.sequence_gap")
    for row in args.rows:
        if row.class_ != AUDIT or row.version != 1:
            ctx.fail("access.not_audit")
    ctx.put(("sequence", ctx.sender), args.sequence)
    ctx.call("records", "put", (args.rows, args.epochs))
    ctx.emit(Appended(args.sequence, len(args.rows)))


@contract.view
def sequence(ctx: View, sender: PublicKey) -> int:
    """The last sequence a key has appended, 0 for none."""
    last: int = ctx.get(("sequence", sender)) or 0
    return last
