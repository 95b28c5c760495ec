"""The replay window counts by block time; expiry has an inclusive and an exclusive end."""

from __future__ import annotations

import pytest
from ehrfast.chain.replay import WINDOW_MS, ReplayWindow, expiry_fault

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("expires", "fault"),
    [
        (NOW - 1, "transaction.expired"),
        (NOW, "transaction.expired"),
        (NOW + 1, None),
        (NOW + WINDOW_MS, None),
        (NOW + WINDOW_MS + 1, "transaction.too_early"),
    ],
)
def test_expiry(expires: int, fault: str | None) -> None:
    assert expiry_fault(expires, NOW) == fault


def test_an_id_is_known_for_the_whole_hour_and_then_dropped() -> None:
    window = ReplayWindow()
    window.add([b"a"], NOW)
    window.forget_before(NOW + WINDOW_MS)
    assert b"a" in window
    window.forget_before(NOW + WINDOW_MS + 2 * 60_000)
    assert b"a" not in window
    assert len(window) == 0


def test_no_pending_transaction_can_outlive_the_memory_of_its_id() -> None:
    """Whatever may run at t is remembered until block time passes its expiry."""
    window = ReplayWindow()
    window.add([b"a"], NOW)
    latest_expiry = NOW + WINDOW_MS
    window.forget_before(latest_expiry - 1)
    assert b"a" in window
    assert expiry_fault(latest_expiry, latest_expiry) == "transaction.expired"
