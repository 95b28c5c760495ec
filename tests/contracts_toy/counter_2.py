"""The next version of counter: each value beside the time of its last change."""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast.contracts.contract import Code, Context, Contract, Natural, Value, View

contract = Contract("counter", version=2)

NAMES_MAX = 16
VALUE_MAX = 1_000_000


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


@contract.migration(from_version=1)
def keep_times(ctx: Context) -> None:
    """Brings each value into its new form; the list of names is capped, so this ends."""
    for name in ctx.get(("names",)) or ():
        held = ctx.get(("value", name))
        if held >= VALUE_MAX:
            ctx.fail("counter.too_large")
        ctx.put(("value", name), (held, None))


@contract.view
def value(ctx: View, name: Code) -> int:
    """The value of a counter."""
    held = ctx.get(("value", name))
    return 0 if held is None else int_of(held)


@contract.view
def changed(ctx: View, name: Code) -> int | None:
    """Block time of the last change since version 2, null when there was none."""
    held = ctx.get(("value", name))
    if held is None:
        return None
    time_ms: int | None = held[1]
    return time_ms


@contract.view
def names(ctx: View) -> tuple[Code, ...]:
    """All counters, in the order they began."""
    listed: tuple[Code, ...] = ctx.get(("names",)) or ()
    return listed


def increase(ctx: Context, name: Code, amount: int) -> int:
    held: Value = ctx.get(("value", name))
    if held is None:
        listed = ctx.get(("names",)) or ()
        if len(listed) >= NAMES_MAX:
            ctx.fail("counter.too_many")
        ctx.put(("names",), listed + (name,))  # noqa: RUF005
        held = (0, None)
    total = int_of(held) + amount
    ctx.put(("value", name), (total, ctx.time_ms))
    ctx.emit(Added(name, total))
    return total


def int_of(held: Value) -> int:
    total: int = held[0]
    return total
