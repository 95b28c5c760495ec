"""Benchmark runs become `results/latest.json`, docs/benchmarks.md and the README's table; nothing is typed by hand.

`python -m benches.report run` measures and writes; `write` makes the tables again; `--compare A B` sets two result
files side by side. A row stands beside its rivals of the same run, also where it loses or misses its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benches import machine, measure
from benches.rows import BARS, ROWS, Bar
from benches.workload import QUICK, ROOT

RESULTS: Final = ROOT / "benches" / "results" / "latest.json"
PROFILES: Final = ROOT / "benches" / "results" / "profiles.json"
NOTES: Final = ROOT / "benches" / "notes.toml"
README: Final = ROOT / "README.md"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- benchmarks: written by benches/report.py -->"
END: Final = "<!-- benchmarks end -->"
FORMAT: Final = 2
SCALING: Final = frozenset({"validate_shards"})

Json = dict[str, Any]


def main() -> None:
    """Reads the command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benches.report", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "write"), default="write")
    parser.add_argument("--only", choices=tuple(ROWS), help="one row; the table is then printed, not written")
    parser.add_argument("--resume", action="store_true", help="keep what this commit measured already in build/benches")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two result files")
    chosen = parser.parse_args()
    if chosen.compare:
        print(compare(*(json.loads(file.read_text(encoding="utf-8")) for file in chosen.compare)))
    elif chosen.what == "write":
        write(json.loads(RESULTS.read_text(encoding="utf-8")))
    else:
        _run(chosen.only, resume=chosen.resume)


def _run(only: str | None, *, resume: bool) -> None:
    result = run(only, resume=resume)
    print(table(result, full=False))
    if only is None and not QUICK:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write(result)
    else:
        print("a part or a quick run: nothing was written", file=sys.stderr)
    for one in result["missing"]:
        print(f"not measured: {one['step']}: {one['reason']}", file=sys.stderr)
    demanded = "bench" in os.environ.get("EHRFAST_REQUIRE", "").split(",")
    if result["missing"] and (demanded or any("python" in one["step"] for one in result["missing"])):
        raise SystemExit(1)


def run(only: str | None, *, resume: bool) -> Json:
    """Measures all rows or one, between two looks at the machine."""
    before = machine.describe()
    figures, missing = measure.take_all([only] if only else list(ROWS), resume=resume)
    after = machine.describe()
    told = {key: value for key, value in before.items() if key not in ("load", "fsync_p50_ms")}
    return {
        "format": FORMAT,
        "machine": {
            **told,
            "load_before": before["load"],
            "load_after": after["load"],
            "fsync_p50_ms": [before["fsync_p50_ms"], after["fsync_p50_ms"]],
        },
        "rows": rows(figures),
        "missing": missing,
    }


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows(figures: Sequence[Json]) -> list[Json]:
    """One row for each pair of ours and a rival on the same work; two threads stand beside one."""
    made: list[Json] = []
    for ours, rival in measure.pairs(figures):
        if ours["threads"] in (None, 1):
            made.append(_row(ours, rival))
    for ours, rival in measure.pairs(figures):
        if ours["threads"] == 2:
            for one in made:
                if _key(one) == (ours["row"], ours["variant"], rival and rival["side"]):
                    one["two_threads"] = _pair(ours, rival)
    return [*made, *(_scaling(one) for one in made if one["name"] in SCALING and one["two_threads"])]


def _scaling(one: Json) -> Json:
    """How a row and its baseline grow from one thread to two, which is the comparison it is there for."""
    two = one["two_threads"]
    value, baseline = two["value"] / one["value"], two["baseline_value"] / one["baseline_value"]
    spreads = {"spread": None, "baseline_spread": None}
    return {
        **one,
        "variant": f"{one['variant']}, scaling to two threads",
        "unit": "x",
        "value": value,
        "baseline_value": baseline,
        "ratio": value / baseline,
        "two_threads": None,
        **spreads,
    }


def _row(ours: Json, rival: Json | None) -> Json:
    return {
        "name": ours["row"],
        "variant": ours["variant"],
        "unit": ours["unit"],
        "baseline": rival and rival["side"],
        **_pair(ours, rival),
        "rounds": ours["rounds"],
        "params": ours["params"],
        "two_threads": None,
    }


def _pair(ours: Json, rival: Json | None) -> Json:
    value, baseline = ours["value"], rival and rival["value"]
    ratio = None
    if baseline is not None:
        ratio = value / baseline if _more_is_better(ours["unit"]) else baseline / value
    return {
        "value": value,
        "baseline_value": baseline,
        "ratio": ratio,
        "spread": ours["spread"],
        "baseline_spread": rival and rival["spread"],
    }


def _more_is_better(unit: str) -> bool:
    return unit.endswith("/s")


def _key(one: Json) -> tuple[str, str, str | None]:
    return one["name"], one["variant"], one["baseline"]


def _bars(one: Json, listed: Sequence[Json]) -> Iterator[tuple[Bar, bool]]:
    """The bars of a row and whether they are reached; one on the value stands at the first of its rows."""
    first = next(other for other in listed if _key(other)[:2] == _key(one)[:2]) is one
    for bar in BARS:
        stands = bar.baseline == one["baseline"] or (not bar.baseline and first)
        if stands and (bar.row, bar.variant) == _key(one)[:2]:
            yield bar, bar.reached(one["ratio"] if bar.baseline else one["value"])


def missed(listed: Sequence[Json]) -> list[Bar]:
    """The bars not reached in a result."""
    return [bar for one in listed for bar, reached in _bars(one, listed) if not reached]


def notes() -> list[Json]:
    """Kept by hand: why a bar is missed, as the profile shows, and the next step."""
    return list(tomllib.loads(NOTES.read_text(encoding="utf-8")).get("note", []))


def faults_of_notes(listed: Sequence[Json]) -> list[str]:
    """A note for a bar that is reached or unknown, and a missed bar without one."""
    wanting = {(bar.row, bar.variant, bar.baseline) for bar in missed(listed)}
    noted = {(one["row"], one["variant"], one.get("baseline", "")) for one in notes()}
    told = [f"a note for a bar that is not missed: {', '.join(filter(None, one))}" for one in sorted(noted - wanting)]
    return told + [f"no note for a missed bar: {', '.join(filter(None, one))}" for one in sorted(wanting - noted)]


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(result: Json, *, full: bool) -> str:
    """Markdown; above 1 the ratio says how many times better than the rival."""
    head = ["row", "value", "unit", "baseline", "baseline value", "ratio", "two threads", "bar"]
    lines = [[*head, "spread", "params"] if full else head]
    listed = result["rows"]
    for one in listed:
        cells = [
            f"`{one['name']}`, {one['variant']}",
            _figure(one["value"]),
            one["unit"],
            one["baseline"] or "–",
            _figure(one["baseline_value"]),
            _ratio(one["ratio"]),
            _two(one["two_threads"]),
            "; ".join(f"{bar.text()} {'reached' if ok else '**missed**'}" for bar, ok in _bars(one, listed)) or "–",
        ]
        if full:
            cells += [f"{_share(one['spread'])} / {_share(one['baseline_spread'])}", _params(one)]
        lines.append(cells)
    for one in result["missing"]:
        said = f"not measured ({one['step']}): {one['reason']}"
        lines.append([f"`{one['name']}`", said, *[""] * (len(lines[0]) - 2)])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rest])


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _two(pair: Json | None) -> str:
    if pair is None:
        return "–"
    return f"{_figure(pair['value'])} / {_figure(pair['baseline_value'])} = {_ratio(pair['ratio'])}"


def _share(spread: float | None) -> str:
    return "–" if spread is None else f"{spread:.0%}"


def _params(one: Json) -> str:
    rounds = f"{one['rounds']} rounds" if one["rounds"] > 1 else "once"
    return f"{one['params']}; {rounds}"


def conditions(told: Json) -> str:
    """The machine in one sentence."""
    syncs = told["fsync_p50_ms"]
    busy = max(told["load_before"], told["load_after"]) > told["processors"] + 1
    also = "; other work shared the processors, so ratios say more than values" if busy else ""
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return (
        f"{told['cpu']}, {told['processors']} processors, {told['simd']}, {told['threads']} threads; "
        f"fdatasync p50 {min(syncs):.2f} to {max(syncs):.2f} ms; load {told['load_before']} before, "
        f"{told['load_after']} after; {versions}; commit {told['commit']}{also}"
    )


def verdict(listed: Sequence[Json]) -> str:
    """How many bars are reached, and where it is said why the others are not."""
    told = [reached for one in listed for _, reached in _bars(one, listed)]
    where = "" if all(told) else "; why the others are not, and what comes next, stands in docs/benchmarks.md"
    return f"{sum(told)} of {len(told)} bars for two processors are reached{where}"


def write(result: Json) -> None:
    """Puts the tables into the README and docs/benchmarks.md, and says where the notes do not fit them."""
    README.write_text(with_summary(README.read_text(encoding="utf-8"), result), encoding="utf-8")
    PAGE.write_text(page(result), encoding="utf-8")
    for fault in faults_of_notes(result["rows"]):
        print(f"benches/notes.toml: {fault}", file=sys.stderr)


def with_summary(readme: str, result: Json) -> str:
    """The README with the table of this result."""
    told = conditions(result["machine"])
    summary = (
        f"{table(result, full=False)}\n\nMedians; value, baseline and ratio on one thread where two threads have a "
        f"column (ours / the baseline's = ratio); a ratio above 1 is better than the baseline, for times too. "
        f"{verdict(result['rows'])}. {told}. More in [docs/benchmarks.md](docs/benchmarks.md).\n"
    )
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{summary}{END}{after}"


def page(result: Json) -> str:
    """The whole of docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Written by `benches/report.py` from `benches/results/` and `benches/notes.toml`; `make bench` measures again "
        "(`ONLY=row`, `QUICK=1` for a look, `RESUME=1` after a break, `LARGE=1` for the largest node), "
        "`make compare A=old.json B=new.json` sets two results side by side, `make profile ROW=row` draws flames.",
        f"Measured on: {conditions(result['machine'])}.",
        "Value and baseline are medians of the same run. A ratio above 1 means better than the baseline, for times "
        "too. A row with two threads has one thread on both sides in the columns before. Spread is the interquartile "
        "range by the median, ours / the baseline's.",
        table(result, full=True),
        f"{verdict(result['rows'])}.",
        *_missed_part(result["rows"]),
        "## What is measured",
        "\n".join(f"- `{name}`: {row.about}" for name, row in ROWS.items()),
    ]
    if PROFILES.exists():
        from benches.profile import section

        profiles: Json = json.loads(PROFILES.read_text(encoding="utf-8"))
        parts += ["## Where the time goes", *(section(told) for told in profiles.values())]
    return "\n\n".join(parts) + "\n"


def _missed_part(listed: Sequence[Json]) -> list[str]:
    noted = {(one["row"], one["variant"], one.get("baseline", "")): one for one in notes()}
    lines = [["row", "why", "next step"]]
    for bar in missed(listed):
        named = (bar.row, bar.variant, bar.baseline)
        note = noted.get(named, {"why": "not looked into yet", "next": "a profile"})
        lines.append([", ".join(filter(None, (f"`{bar.row}`", *named[1:], bar.text()))), note["why"], note["next"]])
    return ["## Bars missed", _markdown(lines)] if len(lines) > 1 else []


def compare(first: Json, second: Json) -> str:
    """Two result files row by row; the ratios matter more than the values when the machines differ."""
    known = {_key(one): one for one in first["rows"]}
    lines = [["row", "baseline", "A", "B", "B by A", "ratio A", "ratio B"]]
    for one in second["rows"]:
        other = known.get(_key(one))
        if other is not None:
            better = one["value"] / other["value"] if _more_is_better(one["unit"]) else other["value"] / one["value"]
            lines.append(
                [
                    f"{one['name']}, {one['variant']}",
                    one["baseline"] or "–",
                    _figure(other["value"]),
                    _figure(one["value"]),
                    f"{better:.2f}",
                    _ratio(other["ratio"]),
                    _ratio(one["ratio"]),
                ]
            )
    return f"A: {conditions(first['machine'])}\nB: {conditions(second['machine'])}\n\n{_markdown(lines)}"


if __name__ == "__main__":
    main()
