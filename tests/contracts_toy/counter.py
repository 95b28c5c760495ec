"""Counters by name: the smallest contract that uses everything a contract can do."""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast.contracts.contract import Code, Context, Contract, Natural, View

contract = Contract("counter", version=1)

NAMES_MAX = 16


@dataclass(frozen=True, slots=True)
class Add:
    """What to add, and to which counter.

    name: the counter; it begins at 0
    amount: how much
    """

    name: Code
    amount: Natural = 1


@dataclass(frozen=True, slots=True)
class Remind:
    """When to add 1.

    name: the counter
    time_ms: block time, later than now
    """

    name: Code
    time_ms: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class Added:
    name: Code
    value: Natural


@contract.method
def add(ctx: Context, args: Add) -> int:
    """Adds to a counter and answers its new value."""
    return increase(ctx, args.name, args.amount)


@contract.method(urgent=True, claimable="emergency")
def remind(ctx: Context, args: Remind) -> None:
    """Adds 1 at a time to come."""
    ctx.at(args.time_ms, "ring", Add(args.name))


@contract.timer
def ring(ctx: Context, args: Add) -> None:
    increase(ctx, args.name, args.amount)


@contract.view
def value(ctx: View, name: Code) -> int:
    """The value of a counter."""
    held: int = ctx.get(("value", name)) or 0
    return held


@contract.view
def names(ctx: View) -> tuple[Code, ...]:
    """All counters, in the order they began."""
    listed: tuple[Code, ...] = ctx.get(("names",)) or ()
    return listed


def increase(ctx: Context, name: Code, amount: int) -> int:
    held = ctx.get(("value", name))
    if held is None:
        listed = ctx.get(("names",)) or ()
        if len(listed) >= NAMES_MAX:
            ctx.fail("counter.too_many")
        ctx.put(("names",), listed + (name,))  # noqa: RUF005
        held = 0
    total: int = held + amount
    ctx.put(("value", name), total)
    ctx.emit(Added(name, total))
    return total
