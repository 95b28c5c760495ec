"""Calls others: what a nested call may do, and what is left when one fails."""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast.contracts.contract import Code, Context, Contract, Natural, View

contract = Contract("relay", version=1)


@dataclass(frozen=True, slots=True)
class Both:
    """Two counters to raise together.

    first: raised first
    second: raised after it
    refuse: whether the relay itself fails in the end
    """

    first: Code
    second: Code
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class Down:
    """How many calls deeper.

    depth: 0 for no further call
    """

    depth: Natural


@dataclass(frozen=True, slots=True)
class Spend:
    """How much work to waste.

    rounds: square root of the steps
    """

    rounds: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class Relayed:
    sum: Natural
    caller: Code | None


@contract.method
def both(ctx: Context, args: Both) -> None:
    """Raises both counters, or neither."""
    first = ctx.call("counter", "add", (args.first,))
    second = ctx.call("counter", "add", (args.second, 2))
    ctx.put(("sum",), first + second)
    ctx.emit(Relayed(first + second, ctx.caller))
    if args.refuse:
        ctx.fail("relay.asked_to")


@contract.method
def down(ctx: Context, args: Down) -> None:
    """Calls itself through the runtime, one level deeper each time."""
    ctx.put(("depth", args.depth), ctx.sender)
    if args.depth > 0:
        ctx.call("relay", "down", Down(args.depth - 1))


@contract.method
def later(ctx: Context, args: Both) -> None:
    """Sets a timer that runs a published method with the rights of this sender."""
    ctx.at(ctx.time_ms + 10, "both", args)


@contract.method
def spend(ctx: Context, args: Spend) -> None:
    """A loop in a loop, to run out of work."""
    total = 0
    for outer in range(args.rounds):
        for inner in range(args.rounds):
            total += outer * inner % 7
    ctx.put(("total",), total)


@contract.method
def wrong(ctx: Context, args: Down) -> None:
    """Breaks after writing: there is no such place in the tuple."""
    ctx.put(("depth", 0), b"written before it broke")
    ctx.put(("depth", 1), (1, 2)[args.depth])


@contract.view
def seen(ctx: View, name: Code) -> int:
    """What another contract's view says."""
    held: int = ctx.read("counter", "value", name)
    return held


@contract.view
def depth(ctx: View, level: Natural) -> bytes | None:
    """Who was at a level."""
    held: bytes | None = ctx.get(("depth", level))
    return held
