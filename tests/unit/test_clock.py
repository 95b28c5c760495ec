"""The chain's clock: block time only grows, and a wall clock that jumps asks."""

from __future__ import annotations

import pytest
from ehrfast.chain.clock import MAX_DRIFT_MS, MAX_FORWARD_AT_OPEN_MS, ChainClock
from ehrfast.errors import UnavailableError


class Hands:
    def __init__(self, wall: int) -> None:
        self.wall = wall
        self.monotonic = 0


def clock_at(hands: Hands, last_block: int, *, trusted: bool = False) -> ChainClock:
    return ChainClock(last_block, trusted=trusted, wall=lambda: hands.wall, monotonic=lambda: hands.monotonic)


def test_block_time_is_the_clock_or_one_more_than_the_last() -> None:
    hands = Hands(1000)
    clock = clock_at(hands, 900)
    assert clock.block_time_ms(900) == 1000
    assert clock.block_time_ms(5000) == 5001
    assert clock.behind_ms(5000) == 4000
    assert clock.judging_ms(5000) == 5000


@pytest.mark.parametrize("jump", [MAX_DRIFT_MS + 1, -MAX_DRIFT_MS - 1])
def test_a_jump_stops_until_the_operators_word(jump: int) -> None:
    hands = Hands(10**9)
    clock = clock_at(hands, 10**9)
    hands.wall += jump
    with pytest.raises(UnavailableError, match=r"clock\.unsteady"):
        clock.require_steady()
    clock.trust()
    clock.require_steady()


def test_both_clocks_moving_together_is_steady() -> None:
    hands = Hands(10**9)
    clock = clock_at(hands, 10**9)
    hands.wall += 10 * MAX_DRIFT_MS
    hands.monotonic += 10 * MAX_DRIFT_MS
    assert clock.steady


def test_far_forward_at_open_asks_unless_trusted() -> None:
    hands = Hands(MAX_FORWARD_AT_OPEN_MS + 2)
    assert not clock_at(hands, 1).steady
    assert clock_at(hands, 1, trusted=True).steady
    assert clock_at(hands, 2).steady


def test_a_block_of_another_chain_answers_for_the_clock() -> None:
    hands = Hands(10 * MAX_FORWARD_AT_OPEN_MS)
    clock = clock_at(hands, 1)
    clock.learn(hands.wall - MAX_FORWARD_AT_OPEN_MS - 1)
    assert not clock.steady
    clock.learn(hands.wall - MAX_FORWARD_AT_OPEN_MS)
    assert clock.steady
    clock.learn(1)
    assert clock.steady
    assert (clock.ahead_ms(5), clock.ahead_ms(hands.wall + 1)) == (hands.wall - 5, 0)
