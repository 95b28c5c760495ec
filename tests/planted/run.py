"""Plants every fault of the table into copies under build/planted, and demands that the named tests turn red.

Without a fault the same tests must pass on the same copies, so that nothing but the fault can be what they see.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from plants import PLANTS, ROOT, Plant

COPIES = ROOT / "build" / "planted"


def main() -> int:
    """Runs all plants, or those whose names hold a word; the exit code says whether each was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="release", help="cargo profile; that of the other tests is compiled")
    parser.add_argument("--only", default="", help="a word of the plants' names")
    given = parser.parse_args()
    chosen = [plant for plant in PLANTS if given.only in plant.name]
    shutil.rmtree(COPIES, ignore_errors=True)
    faults = [
        *_python([plant for plant in chosen if not plant.rust]),
        *_rust([plant for plant in chosen if plant.rust], given.profile),
    ]
    for fault in faults:
        print(f"NOT SEEN: {fault}")
    print(f"{len(chosen) - len(faults)} of {len(chosen)} planted faults turn the suite red")
    return 1 if faults or not chosen else 0


def _python(plants: Sequence[Plant]) -> list[str]:
    if not plants:
        return []
    named = list(dict.fromkeys(test for plant in plants for test in plant.tests))
    sound = _copy(COPIES / "sound")
    red = _pytest(sound, named)
    missed = [f"without a fault: {test}" for test in red]
    for plant in plants:
        package = _copy(COPIES / plant.name.replace(" ", "-"))
        file = package / Path(plant.file).relative_to("python")
        file.write_text(plant.applied(file.read_text("utf-8")), "utf-8")
        missed += _unseen(plant, _pytest(package, plant.tests))
    return missed


def _copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "python", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _pytest(package: Path, tests: Sequence[str]) -> set[str]:
    """The tests that fail when the package is taken from there."""
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return {test for test in tests if re.search(rf"^FAILED {re.escape(test)}\b", done.stdout, re.MULTILINE)}


def _rust(plants: Sequence[Plant], profile: str) -> list[str]:
    """One copy of the workspace with every plant in it, asleep until it is named."""
    if not plants:
        return []
    workspace = COPIES / "workspace"
    shutil.copytree(ROOT / "rust", workspace / "rust", ignore=shutil.ignore_patterns("target", "corpus"))
    if (ROOT / "benches" / "rust").is_dir():
        shutil.copytree(ROOT / "benches" / "rust", workspace / "benches" / "rust")
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / name, workspace / name)
    (workspace / "tests").symlink_to(ROOT / "tests")
    for plant in plants:
        file = workspace / plant.file
        file.write_text(plant.applied(file.read_text("utf-8")), "utf-8")
    named = list(dict.fromkeys(test for plant in plants for test in plant.tests))
    missed = [f"without a fault: {test}" for test in _cargo(workspace, profile, named, None)]
    for plant in plants:
        missed += _unseen(plant, _cargo(workspace, profile, plant.tests, plant.name))
    return missed


def _cargo(workspace: Path, profile: str, tests: Sequence[str], plant: str | None) -> set[str]:
    command = ["cargo", "test", "--locked", "--quiet", "--profile", profile, "-p", "ehrfast-core", "--test", "suite"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
    if plant is not None:
        environment["EHRFAST_PLANT"] = plant
    command += ["--", "--exact", *tests]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    counted = re.search(r"(\d+) passed; (\d+) failed", done.stdout)
    if counted is None or int(counted[1]) + int(counted[2]) != len(tests):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    listed = done.stdout.rpartition("\nfailures:\n")[2]
    return {test for test in tests if int(counted[2]) and re.search(rf"^ +{test}$", listed, re.MULTILINE)}


def _unseen(plant: Plant, red: set[str]) -> list[str]:
    missed = [f"{plant.name}: {test}" for test in plant.tests if test not in red]
    print(f"{plant.name}: {len(red)} of {len(plant.tests)} named tests red", flush=True)
    return missed


if __name__ == "__main__":
    started = monotonic()
    code = main()
    print(f"{monotonic() - started:.0f} s")
    sys.exit(code)
