"""Benchmark runs become `results/latest.json`, docs/benchmarks.md and the README's table; nothing is typed by hand.

`python -m benches.report run` measures and writes; `write` makes the tables again; `--compare A B` sets two result
files side by side. A row stands beside its rivals of the same run, also where it loses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benches" / "results" / "latest.json"
PROFILES: Final = ROOT / "benches" / "results" / "profiles.json"
RAW: Final = ROOT / "build" / "benches"
README: Final = ROOT / "README.md"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- benchmarks: written by benches/report.py -->"
END: Final = "<!-- benchmarks end -->"
ROWS: Final = {
    "signature_verify_batch": "benches/test_signature_verify_batch.py",
    "commit_signed": "benches/test_commit_signed.py",
    "import_fhir": "benches/test_import_fhir.py",
    "synthetic": "benches/test_synthetic.py",
}
OURS: Final = "ehrfast"
MARKS: Final = {("commit_signed", "submit_many"): 20_000, ("import_fhir", "Synthea Bundles"): 10_000}
"""What a row should reach on two processors."""

Json = dict[str, Any]


def main() -> None:
    """Reads the command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benches.report", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "write"), default="write")
    parser.add_argument("--only", choices=tuple(ROWS), help="one row; the tables are then printed, not written")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two result files")
    chosen = parser.parse_args()
    if chosen.compare:
        print(compare(*(json.loads(file.read_text(encoding="utf-8")) for file in chosen.compare)))
    elif chosen.what == "write":
        write(json.loads(RESULTS.read_text(encoding="utf-8")))
    else:
        result = run(chosen.only)
        print(table(result["rows"]))
        if chosen.only is None and os.environ.get("QUICK", "") in ("", "0"):
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            write(result)
        else:
            print("a part or a quick run: nothing was written", file=sys.stderr)


def run(only: str | None) -> Json:
    """Measures: each row in a process of its own, the signatures once on one thread and once on all."""
    runs: list[Json] = []
    for row, file in ROWS.items():
        if only in (None, row):
            if row == "signature_verify_batch":
                runs.append(_measure(f"{row}-1", file, threads=1))
            runs.append(_measure(row, file, threads=None))
    machines = [taken["machine_info"] for taken in runs]
    return {
        "format": 1,
        "machine": {
            **machines[-1],
            "load_before": machines[0]["load_before"],
            "fsync_p50_ms": [machine["fsync_p50_ms"] for machine in machines],
        },
        "rows": rows([bench for taken in runs for bench in taken["benchmarks"]]),
    }


def _measure(name: str, file: str, *, threads: int | None) -> Json:
    RAW.mkdir(parents=True, exist_ok=True)
    target = RAW / f"{name}.json"
    settings = dict(os.environ)
    settings.pop("EHRFAST_THREADS", None)
    if threads is not None:
        settings["EHRFAST_THREADS"] = str(threads)
    command = [sys.executable, "-m", "pytest", "-q", file, "--benchmark-only", f"--benchmark-json={target}"]
    subprocess.run([*command, "--benchmark-columns=median,iqr,rounds"], cwd=ROOT, env=settings, check=True)
    taken: Json = json.loads(target.read_text(encoding="utf-8"))
    return taken


def rows(benchmarks: Iterable[Json]) -> list[Json]:
    """One row for each pair of ours and a rival on the same work."""
    by_work: dict[tuple[str, str], dict[str, Json]] = {}
    for bench in benchmarks:
        told = bench["extra_info"]
        if "row" not in told:
            continue
        by_work.setdefault((told["row"], told["variant"]), {})[told["side"]] = bench
    made = []
    for (row, variant), sides in by_work.items():
        ours = sides[OURS]
        for side, bench in sides.items():
            if side != OURS:
                made.append(_row(row, variant, ours, side, bench))
    return made


def _row(row: str, variant: str, ours: Json, side: str, rival: Json) -> Json:
    value, baseline = _value(ours), _value(rival)
    timed = _is_time(ours["extra_info"]["unit"])
    return {
        "row": row,
        "variant": variant,
        "value": value,
        "unit": ours["extra_info"]["unit"],
        "baseline": side,
        "baseline_value": baseline,
        "ratio": baseline / value if timed else value / baseline,
        "spread": ours["stats"]["iqr"] / ours["stats"]["median"],
        "baseline_spread": rival["stats"]["iqr"] / rival["stats"]["median"],
        "rounds": ours["stats"]["rounds"],
        "params": ours["extra_info"]["params"],
    }


def _is_time(unit: str) -> bool:
    return unit.startswith("ms")


def _value(bench: Json) -> float:
    median, told = float(bench["stats"]["median"]), bench["extra_info"]
    return median * 1000 if _is_time(told["unit"]) else told["items"] / median


def table(listed: Sequence[Json], *, full: bool = False) -> str:
    """Markdown; above 1 the ratio says how many times better than the rival."""
    head = ["row", "value", "unit", "baseline", "baseline value", "ratio"]
    lines = [[*head, "spread", "params"] if full else head]
    for one in listed:
        cells = [
            f"`{one['row']}`, {one['variant']}",
            _figure(one["value"]),
            one["unit"],
            one["baseline"],
            _figure(one["baseline_value"]),
            f"{one['ratio']:.2f}",
        ]
        if full:
            cells += [f"{one['spread']:.0%} / {one['baseline_spread']:.0%}", f"{one['params']}; {one['rounds']} rounds"]
        lines.append(cells)
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def conditions(machine: Json) -> str:
    """The machine in one sentence."""
    syncs = machine["fsync_p50_ms"]
    busy = max(machine["load_before"], machine["load_after"]) > machine["processors"]
    also = "; other work shared the processors, so ratios say more than values" if busy else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['processors']} processors, {machine['simd']}, {machine['threads']} threads; "
        f"fdatasync p50 in the runs {min(syncs):.2f} to {max(syncs):.2f} ms; load {machine['load_before']} before, "
        f"{machine['load_after']} after; {versions}; commit {machine['commit']}{also}"
    )


def write(result: Json) -> None:
    """Puts the tables into the README and docs/benchmarks.md."""
    summary = f"{table(result['rows'])}\n\nMedians; {conditions(result['machine'])}. "
    summary += ""
    summary += f"{marks(result['rows'])} More in [docs/benchmarks.md](docs/benchmarks.md).\n"
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{summary}{END}{after}", encoding="utf-8")
    PAGE.write_text(page(result), encoding="utf-8")


def page(result: Json) -> str:
    """The whole of docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Written by `benches/report.py` from `benches/results/`; `make bench` measures again (`ONLY=row`, `QUICK=1`), "
        "`make profile ROW=row` profiles.",
        f"Measured on: {conditions(result['machine'])}.",
        "Value and baseline are medians of the same run. A ratio above 1 means better than the baseline, for times "
        "too. Spread is the interquartile range by the median, ours / the baseline's.",
        table(result["rows"], full=True),
        marks(result["rows"]),
        "- `signature_verify_batch`: whole batches against a loop over the rival; one thread is a process of one pool "
        "thread (`EHRFAST_THREADS=1`). Keys never seen are new in each round.",
        "- `commit_signed`: signed bytes in; decoded, verified, ordered, executed, appended, synced and under a signed "
        "checkpoint when the clock stops. SQLite verifies with `cryptography` and syncs each write batch; it executes "
        "and proves nothing.",
        "- `import_fhir`: gzip and JSON files in; split, sealed, committed, synced and indexed when the clock stops, "
        "node made beforehand. The floor is `json.loads` + `json.dumps` of the same files, nothing kept; a faster JSON "
        "package would be a stronger floor, and none is among the locked ones.",
    ]
    if PROFILES.exists():
        from benches.profile import section

        profiles: Json = json.loads(PROFILES.read_text(encoding="utf-8"))
        parts += ["## Where the time goes", *(section(profiles[row]) for row in ROWS if row in profiles)]
    return "\n\n".join(parts) + "\n"


def marks(listed: Sequence[Json]) -> str:
    """Whether the rows with a mark reach it in this run."""
    told = {(one["row"], one["variant"]): one["value"] for one in listed}
    parts = []
    for work, mark in MARKS.items():
        if work in told:
            verdict = "reached" if told[work] >= mark else "missed"
            parts.append(f"`{work[0]}`, {work[1]}: {_figure(told[work])} of {mark:,} a second, {verdict} in this run")
    return "Marks for two processors: " + "; ".join(parts) + "."


def compare(first: Json, second: Json) -> str:
    """Two result files row by row; the ratios matter more than the values when the machines differ."""
    known = {(one["row"], one["variant"], one["baseline"]): one for one in first["rows"]}
    lines = [["row", "baseline", "A", "B", "B by A", "ratio A", "ratio B"], ["---"] * 7]
    for one in second["rows"]:
        other = known.get((one["row"], one["variant"], one["baseline"]))
        if other is not None:
            better = other["value"] / one["value"] if _is_time(one["unit"]) else one["value"] / other["value"]
            lines.append(
                [
                    f"{one['row']}, {one['variant']}",
                    one["baseline"],
                    _figure(other["value"]),
                    _figure(one["value"]),
                    f"{better:.2f}",
                    f"{other['ratio']:.2f}",
                    f"{one['ratio']:.2f}",
                ]
            )
    table_of = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"A: {conditions(first['machine'])}\nB: {conditions(second['machine'])}\n\n{table_of}"


if __name__ == "__main__":
    main()
