"""Takes the figures: each row and number of threads is a step in a process of its own, kept in build/benches.

A step that cannot run (a rival that is not there) is listed with its reason and stops no other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benches.machine import commit
from benches.rows import OURS, ROWS, Row
from benches.workload import GO_ROOT, QUICK, ROOT

RAW: Final = ROOT / "build" / "benches"
RUST: Final = ROOT / "benches" / "rust" / "Cargo.toml"
GO: Final = ROOT / "benches" / "go"
GO_LEAVES: Final = 2**16 if QUICK else 2**20
GO_SIDE: Final = "Go transparency-dev/merkle"
STEP_TIMEOUT_S: Final = 900

Json = dict[str, Any]


class StepError(Exception):
    """A step that gave no figures, with the last line it said."""


@dataclass(frozen=True, slots=True)
class Step:
    """One process: a row by one tool on so many threads (None: as the process is)."""

    row: str
    tool: str
    threads: int | None

    @property
    def name(self) -> str:
        """Names its file."""
        return "-".join(filter(None, (self.row, self.tool, str(self.threads or ""))))


def steps(names: Sequence[str]) -> Iterator[Step]:
    """Ours and the rivals' steps of the rows, the Go rival before ours: its root is compared."""
    for name in dict.fromkeys(ROWS[name].within or name for name in names):
        row = ROWS[name]
        for threads in row.threads or (None,):
            tools = (("go", row.go), ("rust", bool(row.rust)), ("python", bool(row.python)))
            yield from (Step(name, tool, threads) for tool, there in tools if there)


def take(step: Step, *, resume: bool) -> list[Json]:
    """The figures of a step; from its file when it was measured at this commit already.

    Raises:
        StepError: it gave none.
    """
    kept = RAW / f"{step.name}{'-quick' if QUICK else ''}.json"
    at = commit()
    if resume and kept.exists():
        known: Json = json.loads(kept.read_text(encoding="utf-8"))
        if known["commit"] == at:
            return list(known["figures"])
    figures = _TOOLS[step.tool](step, ROWS[step.row])
    RAW.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"commit": at, "figures": figures}, indent=1), encoding="utf-8")
    return figures


def _environment(step: Step) -> dict[str, str]:
    settings = {name: value for name, value in os.environ.items() if name != "EHRFAST_THREADS"}
    if step.threads is not None:
        settings["EHRFAST_THREADS"] = str(step.threads)
    return settings


def _run(command: Sequence[str], settings: dict[str, str], *, shown: bool = False) -> str:
    try:
        told = subprocess.run(
            command, cwd=ROOT, env=settings, text=True, timeout=STEP_TIMEOUT_S, check=False,
            stdout=subprocess.PIPE, stderr=None if shown else subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise StepError(f"{error.filename}: not found") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(f"took more than {STEP_TIMEOUT_S} s") from error
    if told.returncode:
        said = [line for line in f"{told.stdout}\n{told.stderr or ''}".splitlines() if line.strip()]
        print("\n".join(said[-30:]), file=sys.stderr)
        raise StepError(said[-1].strip() if said else f"exit code {told.returncode}")
    return told.stdout


# ── pytest-benchmark ────────────────────────────────────────────────────────────────────────────────────────────────


def _python(step: Step, row: Row) -> list[Json]:
    RAW.mkdir(parents=True, exist_ok=True)
    target = RAW / f"{step.name}.pytest.json"
    target.unlink(missing_ok=True)
    settings = _environment(step)
    go = RAW / f"{step.row}-go-1{'-quick' if QUICK else ''}.json"
    if row.go and go.exists():
        settings[GO_ROOT] = json.loads(go.read_text(encoding="utf-8"))["figures"][0]["root"]
    chosen = ["-k", _tests(step.row)] if _tests(step.row) else []
    _run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"benches/{row.python}", *chosen,
         "--benchmark-only", f"--benchmark-json={target}", "--benchmark-columns=median,iqr,rounds"],
        settings,
    )  # fmt: skip
    taken: Json = json.loads(target.read_text(encoding="utf-8"))
    figures = [figure for bench in taken["benchmarks"] for figure in _of_pytest(bench)]
    return [figure for figure in figures if step.row in (figure["row"], ROWS[figure["row"]].within)]


def _tests(row: str) -> str:
    """Where one file has two rows, the tests of one."""
    return {
        "blake3_tree_root": "pack_root or loop_over_blake3 or (loop_over_hashlib and not log)",
        "rfc6962_root": "log_root or log_loop",
        "prove_inclusion": "prove_inclusion",
        "verify_evidence": "not prove_inclusion",
    }.get(row, "")


def _of_pytest(bench: Json) -> Iterator[Json]:
    told, stats = bench["extra_info"], bench["stats"]
    if "row" in told:
        median, spread = float(stats["median"]), stats["iqr"] / stats["median"]
        yield _figure(told, told["side"], told["threads"], _value(median, told["items"], told["unit"]), spread,
                      stats["rounds"])  # fmt: skip
    for one in told.get("figures", ()):
        yield _figure(one, one["side"], None, one["value"], None, 1)


def _figure(told: Json, side: str, threads: int | None, value: float, spread: float | None, rounds: int) -> Json:
    named = {key: told[key] for key in ("row", "variant", "unit", "params")}
    return {**named, "side": side, "threads": threads, "value": value, "spread": spread, "rounds": rounds}


def _value(seconds: float, items: int, unit: str) -> float:
    """A rate, or a time in the unit's scale."""
    if unit.endswith("/s"):
        return items / seconds
    return seconds * {"s": 1.0, "ms": 1e3, "us": 1e6}[unit.split()[0]]


# ── criterion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _rust(step: Step, row: Row) -> list[Json]:
    home = RAW / "criterion" / step.name
    shutil.rmtree(home, ignore_errors=True)
    settings = {**_environment(step), "CRITERION_HOME": str(home)}
    told = _run([*cargo_bench(), "--", "--noplot", f"^{step.row}/"], settings, shown=True)
    figures = []
    for described in sorted(home.rglob("new/benchmark.json")):
        bench: Json = json.loads(described.read_text(encoding="utf-8"))
        sample: Json = json.loads(described.with_name("sample.json").read_text(encoding="utf-8"))
        variant, _, side = bench["function_id"].partition("|")
        times = sorted(time / count / 1e9 for time, count in zip(sample["times"], sample["iters"], strict=True))
        named = {"row": step.row, "variant": variant, "unit": row.rust, "params": row.rust_params}
        items = (bench["throughput"] or {}).get("Elements", 1)
        low, median, high = statistics.quantiles(times, n=4)
        value = _value(median, items, row.rust)
        figures.append(_figure(named, side, _column(row, step), value, (high - low) / median, len(times)))
    for fact in re.findall(r"^fact\t(.+)\t(.+)\t(.+)\t(.+)$", told, re.MULTILINE):
        if fact[0] == step.row:
            named = {"row": fact[0], "variant": fact[1], "unit": "B", "params": "mean"}
            figures.append(_figure(named, fact[2], _column(row, step), float(fact[3]), None, 1))
    if not any(figure["side"] == OURS for figure in figures):
        raise StepError("criterion gave no figures")
    return figures


def _column(row: Row, step: Step) -> int | None:
    """A row that runs on one thread only has no second column to set it beside."""
    return step.threads if len(row.threads) > 1 else None


def cargo_bench(*options: str) -> list[str]:
    """The core's benchmarks, built where everything of Rust is built."""
    return [
        "cargo", "bench", "--quiet", "--manifest-path", str(RUST), "--target-dir", str(ROOT / "target"),
        "--bench", "core", *options,
    ]  # fmt: skip


# ── Go ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _go(step: Step, row: Row) -> list[Json]:
    RAW.mkdir(parents=True, exist_ok=True)
    program = RAW / "go-merkle"
    _run(["go", "build", "-C", str(GO), "-o", str(program), "."], {**os.environ, "CGO_ENABLED": "0"})
    rounds = 2 if QUICK else 5
    told: Json = json.loads(
        _run(
            [str(program), f"-count={GO_LEAVES}", f"-rounds={rounds}", f"-threads={step.threads or 1}"],
            dict(os.environ),
        )
    )
    times = sorted(told["seconds"])
    named = {"row": step.row, "unit": row.rust, "params": f"{GO_LEAVES:,} leaves; a rival in another process"}
    low, median, high = statistics.quantiles(times, n=4)
    figure = _figure({**named, "variant": ""}, GO_SIDE, step.threads, GO_LEAVES / median, (high - low) / median, rounds)
    return [{**figure, "root": told["root"], "variant": variant} for variant in ("Python, 97 B leaves",)]


_TOOLS: Final = {"python": _python, "rust": _rust, "go": _go}


def take_all(names: Sequence[str], *, resume: bool) -> tuple[list[Json], list[Json]]:
    """All figures of the rows, and the steps that gave none with their reasons."""
    figures: list[Json] = []
    missing: list[Json] = []
    for step in steps(names):
        print(f"== {step.name}", file=sys.stderr, flush=True)
        try:
            figures += take(step, resume=resume)
        except StepError as error:
            missing.append({"name": step.row, "step": step.name, "reason": str(error)})
    return figures, missing


def pairs(figures: Sequence[Json]) -> list[tuple[Json, Json | None]]:
    """Ours with each rival of the same work and threads; alone where there is none."""
    made: list[tuple[Json, Json | None]] = []
    for ours in figures:
        if ours["side"] == OURS:
            same = [one for one in figures if _work(one) == _work(ours) and one["side"] != OURS]
            made += [(ours, rival) for rival in same or [None]]
    return made


def _work(figure: Json) -> tuple[Any, ...]:
    return figure["row"], figure["variant"], figure["threads"]
