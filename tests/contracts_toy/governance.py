"""Stands in for governance: switches contracts without asking anyone."""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast.contracts.contract import Code, Context, Contract, Digest, Natural

contract = Contract("governance", version=1)


@dataclass(frozen=True, slots=True)
class Switch:
    """Which version from which height on.

    contract: its name
    version: higher than the present one
    code_hash: of its file
    height: a block to come
    refuse: whether to fail after all
    """

    contract: Code
    version: Natural
    code_hash: Digest
    height: Natural
    refuse: bool = False


@contract.method
def switch(ctx: Context, args: Switch) -> None:
    """Schedules a switch."""
    ctx.schedule(args.contract, args.version, args.code_hash, args.height)
    if args.refuse:
        ctx.fail("governance.rejected")
