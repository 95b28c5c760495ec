"""What a result file says beside the figures: processor, instructions, threads, sync cost, load, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from ehrfast._core import simd_tier, thread_count

from benches.workload import ROOT, fsync_median_ms

_PACKAGES = ("numpy", "cryptography", "pynacl", "blake3", "orjson", "pytest-benchmark")
_CRATES = ("ed25519-zebra", "blake3", "sha2", "ring", "jmt", "criterion")


def describe() -> dict[str, Any]:
    """This machine now; no host name, no path."""
    with tempfile.TemporaryDirectory() as folder:
        fsync = fsync_median_ms(Path(folder))
    return {
        "cpu": _cpu_model(),
        "processors": len(os.sched_getaffinity(0)),
        "simd": simd_tier(),
        "threads": thread_count(),
        "fsync_p50_ms": round(fsync, 3),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "commit": commit(),
    }


def versions() -> dict[str, str]:
    """Ours and the rivals'."""
    told = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    told |= {name: metadata.version(name) for name in _PACKAGES}
    told["rustc"] = _first_word(("rustc", "--version"), 1)
    lock = (ROOT / "benches" / "rust" / "Cargo.lock").read_text(encoding="utf-8")
    for name in _CRATES:
        found = re.search(rf'name = "{name}"\nversion = "([^"]+)"', lock)
        told[f"{name} (crate)"] = found[1] if found else "absent"
    told["go"] = _first_word(("go", "version"), 2)
    module = re.search(r"transparency-dev/merkle (\S+)", (ROOT / "benches/go/go.mod").read_text(encoding="utf-8"))
    told["transparency-dev/merkle"] = module[1] if module else "absent"
    return told


def commit() -> str:
    """The commit measured, marked when files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def _first_word(command: tuple[str, ...], word: int) -> str:
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return "absent"
    return told[word] if len(told) > word else "absent"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
