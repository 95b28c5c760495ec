"""Commands for the clock that block time comes from: how it stands, and the operator's word that it is right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ehrfast.cli.operate import NodeFolder
from ehrfast.cli.output import Json, answer, utc

if TYPE_CHECKING:
    from ehrfast.node import Node


def show(node: NodeFolder, as_json: Json = False) -> None:
    """Show this machine's clock beside the node's newest block.

    Steady is false when the clock is more than 400 days past that block: writes and reads of records are refused with
    clock.unsteady then, until somebody says that it is right.

    \b
    Example: ehrfast clock show clinic.ehr
    """
    from ehrfast.node import Node

    with Node.open(node, read_only=True) as opened:
        value = _standing(opened)
    answer(value, as_json)


def trust(node: NodeFolder, as_json: Json = False) -> None:
    """Say that this machine's clock is right, after a long pause or a change of machine.

    Look at it first: block time never goes back, so a block from the future stays in front of all others. An audit
    event says who trusted it; its block carries the present time, and the node asks no more.

    \b
    Example: ehrfast clock trust clinic.ehr
    """
    from ehrfast.node import Node

    with Node.open(node, trust_clock=True) as opened:
        before = _standing(opened)
        height = opened.trust_clock()
    answer({"ahead_ms": before["ahead_ms"], "now": before["now"], "height": height}, as_json)


def _standing(node: Node) -> dict[str, object]:
    clock, newest_ms = node.chain.clock, node.chain.published.time_ms
    return {
        "now": utc(datetime.fromtimestamp(clock.now_ms() / 1000, tz=UTC)),
        "newest_block": utc(datetime.fromtimestamp(newest_ms / 1000, tz=UTC)),
        "ahead_ms": clock.ahead_ms(newest_ms),
        "behind_ms": clock.behind_ms(newest_ms),
        "steady": clock.steady,
    }
