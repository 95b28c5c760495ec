"""The published tables are what the committed result says, rivals and missed bars included."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benches import measure, report
from benches.rows import BARS, ROWS, Bar

RESULT = json.loads(report.RESULTS.read_text(encoding="utf-8"))


def figure(side: str, value: float, *, unit: str = "things/s", threads: int | None = None) -> Any:
    return {
        "row": "import_fhir", "variant": "v", "side": side, "threads": threads, "value": value, "unit": unit,
        "spread": 0.01,
        "rounds": 3, "params": "p",
    }  # fmt: skip


def result(*rows: Any, missing: Any = ()) -> Any:
    return {"rows": list(rows), "missing": list(missing), "machine": RESULT["machine"]}


def test_readme_and_page_are_written_from_the_committed_result() -> None:
    readme = report.README.read_text(encoding="utf-8")
    assert report.with_summary(readme, RESULT) == readme
    assert report.page(RESULT) == report.PAGE.read_text(encoding="utf-8")


def test_every_missed_bar_has_a_note_and_no_other() -> None:
    assert report.faults_of_notes(RESULT["rows"]) == []


def test_a_note_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "notes", lambda: [{"row": "import_fhir", "variant": "w", "why": "", "next": ""}])
    monkeypatch.setattr(report, "BARS", (Bar("import_fhir", "v", "", "at least", 10),))
    slow = report.rows([figure("ehrfast", 9.0), figure("rival", 1.0)])
    assert report.faults_of_notes(slow) == [
        "a note for a bar that is not missed: import_fhir, w",
        "no note for a missed bar: import_fhir, v",
    ]


def test_a_row_stands_beside_each_rival_on_one_thread_and_on_two() -> None:
    made = report.rows(
        [
            figure("ehrfast", 10.0, threads=1), figure("rival", 4.0, threads=1), figure("other", 20.0, threads=1),
            figure("ehrfast", 18.0, threads=2), figure("rival", 9.0, threads=2),
        ]
    )  # fmt: skip
    assert [(one["baseline"], one["ratio"]) for one in made] == [("rival", 2.5), ("other", 0.5)]
    assert made[0]["two_threads"]["ratio"] == 2.0
    assert made[1]["two_threads"] is None


def test_shards_are_judged_by_how_they_scale() -> None:
    sides = [("ehrfast", 10.0, 1), ("alone", 40.0, 1), ("ehrfast", 18.0, 2), ("alone", 60.0, 2)]
    made = report.rows(
        [{**figure(side, value, threads=threads), "row": "validate_shards"} for side, value, threads in sides]
    )
    assert [(one["variant"], one["ratio"]) for one in made] == [("v", 0.25), ("v, scaling to two threads", 1.2)]


def test_for_times_less_is_better_and_a_row_without_rival_stays() -> None:
    [timed] = report.rows([figure("ehrfast", 2.0, unit="ms p50"), figure("rival", 3.0, unit="ms p50")])
    assert timed["ratio"] == 1.5
    [alone] = report.rows([figure("ehrfast", 2.0)])
    assert (alone["baseline"], alone["ratio"]) == (None, None)
    assert "| – | – | – |" in report.table(result(alone), full=False)


@pytest.mark.parametrize(("side", "value", "told"), [("at least", 9.0, "missed"), ("at most", 9.0, "reached")])
def test_a_bar_is_shown_and_judged(monkeypatch: pytest.MonkeyPatch, side: Any, value: float, told: str) -> None:
    monkeypatch.setattr(report, "BARS", (Bar("import_fhir", "v", "", side, 10),))
    lines = report.table(result(*report.rows([figure("ehrfast", value), figure("rival", 1.0)])), full=False)
    assert told in lines.splitlines()[2]


def test_a_rival_that_could_not_run_is_in_the_table() -> None:
    missing = [{"name": "rfc6962_root", "step": "rfc6962_root-go-1", "reason": "go: not found"}]
    assert "not measured (rfc6962_root-go-1): go: not found" in report.table(result(missing=missing), full=False)


def test_two_results_are_compared_row_by_row() -> None:
    first = result(*report.rows([figure("ehrfast", 10.0), figure("rival", 5.0)]))
    second = result(*report.rows([figure("ehrfast", 30.0), figure("rival", 5.0)]))
    assert "| import_fhir, v | rival | 10 | 30 | 3.00 | 2.00 | 6.00 |" in report.compare(first, second)


def test_a_step_without_its_tool_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(measure, "RAW", tmp_path)
    monkeypatch.setattr(measure, "commit", lambda: "abc")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(measure.StepError, match="go: not found"):
        measure.take(measure.Step("rfc6962_root", "go", 1), resume=False)


def test_what_was_measured_at_this_commit_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    taken: list[str] = []
    tool = {"python": lambda step, row: [taken.append(step.name), figure("ehrfast", 1.0)][1:]}
    monkeypatch.setattr(measure, "RAW", tmp_path)
    monkeypatch.setattr(measure, "_TOOLS", tool)
    monkeypatch.setattr(measure, "commit", lambda: "abc")
    step = measure.Step("import_fhir", "python", None)
    assert measure.take(step, resume=True) == measure.take(step, resume=True)
    assert taken == ["import_fhir-python"]
    measure.take(step, resume=False)
    monkeypatch.setattr(measure, "commit", lambda: "def")
    measure.take(step, resume=True)
    assert len(taken) == 3


def test_every_bar_names_a_row_and_every_row_a_way_to_measure_it() -> None:
    assert {bar.row for bar in BARS} <= set(ROWS)
    assert all(row.python or row.rust or ROWS[row.within].python for row in ROWS.values())
    assert all((report.ROOT / "benches" / row.python).is_file() for row in ROWS.values() if row.python)
