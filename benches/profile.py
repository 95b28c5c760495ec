"""Where the time of a row goes: `python -m benches.profile commit_signed` measures, prints, and keeps it for the docs.

Rows of Python run three times: plain, with the processor time of each thread; under cProfile on every Python thread,
counting each thread's own processor time, so that waiting costs nothing; and under py-spy for a flame graph. Rows of
the core run under criterion with a sampler. Flame graphs go to build/profiles.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from ehrfast import Node

from benches import workload
from benches.measure import cargo_bench
from benches.rows import OURS, ROWS
from benches.workload import ROOT

PROFILES: Final = ROOT / "benches" / "results" / "profiles.json"
FLAMES: Final = ROOT / "build" / "profiles"
FLAME_SECONDS: Final = 5
TOP: Final = 14
COMMITS: Final = 40_960
BATCHES: Final = 20
READS: Final = 4_000

Json = dict[str, Any]
Running = tuple[Callable[[], int], Callable[[], None]]
"""Does the row's work once and gives the items; and closes what it stood on."""
Build = Callable[[Path], Running]


def main() -> None:
    """Profiles the rows named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benches.profile", description=__doc__)
    known = (*dict.fromkeys((*_ROWS, *(name for name, row in ROWS.items() if row.rust))), "all")
    parser.add_argument("rows", nargs="*", choices=known, default="all", metavar="row", help=", ".join(known))
    parser.add_argument("--work", choices=tuple(_ROWS), help="only does the row's work once, for a profiler outside")
    chosen = parser.parse_args()
    if chosen.work:
        with tempfile.TemporaryDirectory() as folder:
            work, close = _ROWS[chosen.work](Path(folder))
            work()
            close()
        return
    kept: Json = json.loads(PROFILES.read_text(encoding="utf-8")) if PROFILES.exists() else {}
    FLAMES.mkdir(parents=True, exist_ok=True)
    for row in known[:-1] if "all" in chosen.rows else chosen.rows:
        if row in _ROWS:
            kept[row] = profile(row)
            print(section(kept[row]))
            _flames_of_python(row)
        if row in ROWS and ROWS[row].rust:
            _flames_of_core(row)
    PROFILES.parent.mkdir(exist_ok=True)
    PROFILES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _flames_of_python(row: str) -> None:
    """py-spy samples a process that does the row's work; idle threads are left out."""
    target = FLAMES / f"{row}.svg"
    spy = str(Path(sys.executable).parent / "py-spy")
    work = [sys.executable, "-m", "benches.profile", "--work", row]
    command = [spy, "record", "--threads", "--rate", "250", "--output", str(target), "--", *work]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if target.exists():
        print(f"flame graph: {target.relative_to(ROOT)}")
    else:
        print(f"no flame graph: py-spy: {told.stderr.strip().splitlines()[-1:]}", file=sys.stderr)


def _flames_of_core(row: str) -> None:
    """The sampler is compiled in for this run only."""
    settings = {**os.environ, "EHRFAST_FLAMES": str(FLAMES), "EHRFAST_THREADS": "1"}
    subprocess.run(
        [*cargo_bench("--features", "profile"), "--", "--profile-time", str(FLAME_SECONDS), rf"^{row}/.*\|{OURS}$"],
        cwd=ROOT,
        env=settings,
        check=True,
    )


def profile(row: str) -> Json:
    """One row measured plain, then under the profiler."""
    with tempfile.TemporaryDirectory() as folder:
        plain = _plain(_ROWS[row], Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        functions = _functions(_ROWS[row], Path(folder))
    return {"row": row, **plain, "functions": functions, "python": platform.python_version()}


def section(told: Json) -> str:
    """One row's profile as Markdown."""
    parts = [
        f"### {told['row']}",
        f"{told['items']:,} items in {told['wall_s']:.2f} s, {told['process_s']:.2f} s of processor time in all "
        f"({told['process_s'] / told['wall_s']:.2f} processors busy), unprofiled.",
        _rows(["thread", "processor time"], [[name, f"{share:.0%}"] for name, share in told["threads"]]),
        "Functions by their own processor time, under cProfile, which makes small Python functions look dearer than "
        "they are; a native function counts with what it does on the calling thread.",
        _rows(
            ["share", "calls", "us per item", "function"],
            [[f"{one['share']:.1%}", f"{one['calls']:,}", f"{one['us']:.2f}", f"`{one['name']}`"]
             for one in told["functions"]],
        ),
    ]
    return "\n\n".join(parts)


def _rows(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def _plain(build: Build, folder: Path) -> Json:
    work, close = build(folder)
    before, process, wall = _thread_seconds(), time.process_time(), time.perf_counter()
    items = work()
    wall, process, after = time.perf_counter() - wall, time.process_time() - process, _thread_seconds()
    close()
    threads = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    threads["pool of the core, and threads that have ended"] = max(0.0, process - sum(threads.values()))
    shares = sorted(((name, seconds / process) for name, seconds in threads.items()), key=lambda pair: -pair[1])
    return {"items": items, "wall_s": wall, "process_s": process, "threads": shares}


def _thread_seconds() -> dict[str, float]:
    """Processor time of each Python thread so far."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


def _functions(build: Build, folder: Path) -> list[Json]:
    taken = [cProfile.Profile(time.thread_time)]
    with _profiled_threads(taken):
        work, close = build(folder)
        items = taken[0].runcall(work)
        close()
    stats: Any = pstats.Stats(*taken)
    waits = re.compile(r"^(acquire|wait|join)|'acquire' of|'get' of '_queue|'(select|poll)' of")
    rows = {where: row for where, row in stats.stats.items() if not waits.search(where[2])}
    total = sum(row[2] for row in rows.values())
    listed = sorted(rows.items(), key=lambda item: -item[1][2])[:TOP]
    return [
        {"name": _name(where), "calls": row[0], "share": row[2] / total, "us": row[2] / items * 1e6}
        for where, row in listed
    ]


@contextmanager
def _profiled_threads(taken: list[cProfile.Profile]) -> Iterator[None]:
    """Every thread started meanwhile runs under a profiler of its own."""
    original = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        profiler = cProfile.Profile(time.thread_time)
        taken.append(profiler)
        profiler.runcall(original, thread)

    with mock.patch.object(threading.Thread, "run", run):
        yield


def _name(where: tuple[str, int, str]) -> str:
    """A function by module; no path and no address, so that two profiles can be compared."""
    file, _, function = where
    if file == "~":
        return re.sub(r" at 0x[0-9a-f]+", "", function).strip("<>")
    for marker in ("python/ehrfast/", "benches/", "/tests/"):
        if marker in file:
            return f"{marker.strip('/').removeprefix('python/')}/{file.rpartition(marker)[2]}:{function}"
    return f"{Path(file).name}:{function}"


def _signatures(folder: Path) -> Running:
    batches = [workload.columns(workload.fresh_messages()) for _ in range(BATCHES)]

    def work() -> int:
        for batch in batches:
            workload.verify_columns(*batch)
        return len(batches) * workload.BATCH

    return work, lambda: None


def _commits(folder: Path) -> Running:
    chain = workload.CounterChain(folder / "node")
    chain.submit_many(chain.sign(workload.BATCH))
    submissions = chain.sign(COMMITS)

    def work() -> int:
        chain.submit_many(submissions)
        return len(submissions)

    return work, chain.close


def _tasks(folder: Path) -> Running:
    chain = workload.CounterChain(folder / "node")
    submissions = chain.sign(COMMITS // 2)

    def work() -> int:
        chain.submit_by_tasks(submissions)
        return len(submissions)

    return work, chain.close


def _reads(folder: Path) -> Running:
    _, files = workload.fhir_files(folder / "fhir")
    node = Node.create(folder / "node", organisation="Bench")
    node.import_fhir(*files[:12])
    readers = workload.Readers(node)

    def work() -> int:
        readers.read(READS)
        return READS

    return work, node.close


def _import(folder: Path) -> Running:
    _, files = workload.fhir_files(folder / "fhir")
    node = Node.create(folder / "node", organisation="Bench")
    return lambda: workload.import_once(node, files), node.close


_ROWS: Final[dict[str, Build]] = {
    "signature_verify_batch": _signatures,
    "commit_signed": _commits,
    "commit_signed by tasks": _tasks,
    "import_fhir": _import,
    "read_record": _reads,
}

if __name__ == "__main__":
    main()
