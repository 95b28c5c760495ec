"""What a result file says beside the figures: processor, instructions, threads, sync cost, load, versions, commit."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from ehrfast._core import simd_tier, thread_count

from benches.workload import fsync_median_ms

ROOT = Path(__file__).resolve().parent.parent
LOAD_AT_START = os.getloadavg()[0]


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Replaces the plugin's description, which names the host, by what a figure depends on."""
    with tempfile.TemporaryDirectory() as folder:
        fsync = fsync_median_ms(Path(folder))
    machine_info.clear()
    machine_info.update(
        cpu=_cpu_model(),
        processors=len(os.sched_getaffinity(0)),
        simd=simd_tier(),
        threads=thread_count(),
        fsync_p50_ms=round(fsync, 3),
        load_before=round(LOAD_AT_START, 2),
        load_after=round(os.getloadavg()[0], 2),
        system=f"{platform.system()} {platform.machine()}",
        versions={
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            **{name: metadata.version(name) for name in ("numpy", "cryptography", "pynacl", "pytest-benchmark")},
        },
        commit=_commit(),
    )


def pytest_benchmark_generate_commit_info(config: Any) -> dict[str, Any]:
    """The commit stands with the machine."""
    return {}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"
