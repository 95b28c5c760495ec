"""The clock from the command line: a node that slept for years asks once, and the operator's word lasts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from ehrfast import Node

from tests.interface.test_cli import refused, rows, run, told

DAY_NS = 24 * 3600 * 10**9


def test_a_node_that_slept_for_years_asks_until_the_clock_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, source = tmp_path / "clinic.ehr", tmp_path / "o.json"
    source.write_text(json.dumps({"resourceType": "Observation", "id": "o"}))
    now_ns = time.time_ns
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: now_ns() - 500 * DAY_NS)
        with Node.create(folder, organisation="Clinic North") as node:
            node.add_chain("side")
            auditor = str(node.identities.enrol("auditor", role="auditor"))
    standing = told("clock", "show", folder)
    assert set(standing) == {"now", "newest_block", "ahead_ms", "behind_ms", "steady"}
    assert (standing["steady"], standing["behind_ms"]) == (False, 0)
    assert 499 * DAY_NS < standing["ahead_ms"] * 10**6 < 501 * DAY_NS  # type: ignore[operator]
    assert refused(6, "keys", "enrol", folder, "--name", "n", "--role", "nurse") == "clock.unsteady"
    height = told("status", folder)["height"]
    word = told("clock", "trust", folder)
    assert set(word) == {"ahead_ms", "now", "height"}
    assert word["height"] == height + 1  # type: ignore[operator]
    assert told("clock", "show", folder)["steady"] is True
    told("keys", "enrol", folder, "--name", "n", "--role", "nurse")
    told("import", folder, source)
    with Node.open(folder) as node:  # its other chain has no block of the present
        assert node.chain_named("side").clock.steady
    asked = ("--as", auditor, "--purpose", "HOPERAT")
    events = rows("list", folder, "AuditEvent", *asked)
    told_events = [run("get", folder, each["reference"], *asked).stdout for each in events]
    assert sum(b"clock.trusted" in each for each in told_events) == 1
