"""Where the time of a row goes: `python -m benches.profile commit_signed` measures, prints, and keeps it for the docs.

Twice: once plain, with the processor time of each thread; once under cProfile on every Python thread, counting each
thread's own processor time, so that waiting costs nothing. Pool threads of the core appear as the rest of the process.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import platform
import pstats
import re
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

ROOT: Final = Path(__file__).resolve().parent.parent
PROFILES: Final = ROOT / "benches" / "results" / "profiles.json"
TOP: Final = 14
COMMITS: Final = 40_960
BATCHES: Final = 20

Json = dict[str, Any]
Running = tuple[Callable[[], int], Callable[[], None]]
"""Does the row's work once and gives the items; and closes what it stood on."""
Build = Callable[[Path], Running]


def main() -> None:
    """Profiles the rows named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benches.profile", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=(*_ROWS, "all"), default="all", metavar="row", help=", ".join(_ROWS))
    named = parser.parse_args().rows
    chosen = list(_ROWS) if "all" in named else named
    kept: Json = json.loads(PROFILES.read_text(encoding="utf-8")) if PROFILES.exists() else {}
    for row in chosen:
        kept[row] = profile(row)
        print(section(kept[row]))
    PROFILES.parent.mkdir(exist_ok=True)
    PROFILES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


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
    waits = ("acquire", "wait", "join")
    rows = {where: row for where, row in stats.stats.items() if not where[2].startswith(waits)}
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


def _import(folder: Path) -> Running:
    _, files = workload.fhir_files(folder / "fhir")
    node = Node.create(folder / "node", organisation="Bench")
    return lambda: workload.import_once(node, files), node.close


_ROWS: Final[dict[str, Build]] = {
    "signature_verify_batch": _signatures,
    "commit_signed": _commits,
    "import_fhir": _import,
}

if __name__ == "__main__":
    main()
