"""Lanes: emergency leaves a fifth to the others, urgent and routine share 3:1, order within a lane is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from ehrfast.consensus.engine import Admitted
from ehrfast.consensus.lanes import EMERGENCY, ROUTINE, URGENT, Lanes


def items(lane: int, count: int, size: int = 1) -> list[Admitted]:
    return [Admitted(cast(Any, SimpleNamespace(id=(lane, n))), (), lane, size) for n in range(count)]


def lanes_of(taken: list[Admitted]) -> list[int]:
    return [item.lane for item in taken]


def test_emergency_goes_first_and_leaves_a_fifth() -> None:
    lanes = Lanes()
    lanes.add(items(ROUTINE, 100) + items(EMERGENCY, 100))
    taken = lanes_of(lanes.take(10, 10**6))
    assert taken == [EMERGENCY] * 8 + [ROUTINE] * 2


def test_emergency_alone_takes_the_whole_block() -> None:
    lanes = Lanes()
    lanes.add(items(EMERGENCY, 100))
    assert lanes_of(lanes.take(10, 10**6)) == [EMERGENCY] * 10


def test_urgent_and_routine_share_three_to_one() -> None:
    lanes = Lanes()
    lanes.add(items(ROUTINE, 100) + items(URGENT, 100))
    taken = lanes_of(lanes.take(40, 10**6))
    assert taken.count(URGENT) == 30
    assert taken.count(ROUTINE) == 10


def test_room_nobody_wants_is_not_wasted() -> None:
    lanes = Lanes()
    lanes.add(items(URGENT, 100) + items(ROUTINE, 2))
    taken = lanes_of(lanes.take(40, 10**6))
    assert taken.count(ROUTINE) == 2
    assert taken.count(URGENT) == 38


def test_order_of_arrival_is_kept_also_after_put_back() -> None:
    lanes = Lanes()
    lanes.add(items(ROUTINE, 5))
    taken = lanes.take(3, 10**6)
    lanes.put_back(taken)
    again = lanes.take(5, 10**6)
    assert [cast(Any, item.transaction).id[1] for item in again] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("lane", [EMERGENCY, URGENT, ROUTINE])
def test_an_item_larger_than_the_block_still_goes_alone(lane: int) -> None:
    lanes = Lanes()
    lanes.add(items(lane, 2, size=1000))
    assert len(lanes.take(10, 10)) == 1
    assert len(lanes) == 1
