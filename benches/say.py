"""What a measurement says of itself, so that the report can set it beside its rivals."""

from __future__ import annotations

from typing import Any

from ehrfast._core import thread_count


def say(
    benchmark: Any, row: str, variant: str, side: str, *, items: int, unit: str, params: str, threaded: bool = False
) -> None:
    """Names one timed measurement.

    Args:
        side: ``ehrfast`` or the rival's name.
        items: how many in one round; 1 where the unit is a time.
        unit: ``…/s``, or ``s``, ``ms``, ``us`` and what they are of.
        threaded: this run has the threads the row speaks of, on both sides.
    """
    benchmark.extra_info.update(
        row=row,
        variant=variant,
        side=side,
        items=items,
        unit=unit,
        params=params,
        threads=thread_count() if threaded else None,
    )


def tell(benchmark: Any, row: str, variant: str, side: str, value: float, unit: str, params: str) -> None:
    """Adds a figure that is no time of this benchmark."""
    figure = {"row": row, "variant": variant, "side": side, "value": value, "unit": unit, "params": params}
    benchmark.extra_info.setdefault("figures", []).append(figure)
