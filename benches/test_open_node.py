"""Row `open_node`: a closed node is opened by a new process; its time and the peak of its memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.say import tell
from benches.workload import LARGE, QUICK, ROOT, node_with_keys

SIZES = (20_000,) if QUICK else (100_000, 1_000_000, *([10_000_000] if LARGE else []))
ROUNDS = 1 if QUICK else 3


@pytest.mark.parametrize("keys", SIZES)
def test_open(benchmark: Any, keys: int, tmp_path: Path) -> None:
    node_with_keys(tmp_path / "node", keys)
    opened: list[dict[str, float]] = []

    def open_in_child() -> None:
        command = [sys.executable, "-m", "benches.open_child", str(tmp_path / "node")]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        opened.append(json.loads(told.stdout))

    # What pytest-benchmark times includes the start of Python; the child's own clock is what counts.
    benchmark.pedantic(open_in_child, rounds=ROUNDS)
    params = "posted epochs of a node of its own; a new process, its clock around Node.open"
    row, variant = "open_node", f"{keys:,} keys"
    taken = statistics.median(one["seconds"] for one in opened)
    tell(benchmark, row, variant, "ehrfast", taken, "s", params)
    peak = max(one["peak_mb"] for one in opened)
    tell(benchmark, row, f"{variant}, memory", "ehrfast", peak, "MB", f"{params}; peak of the process")
