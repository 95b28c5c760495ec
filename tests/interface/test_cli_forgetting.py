"""The commands that take things away: members, exit codes, and that a dry run changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.interface.test_cli import refused, rows, told

ERASED = {"kind", "id", "height", "items", "transactions", "values", "segments", "keys", "identities", "state"}


def test_erasing_pruning_and_holding_from_the_command_line(tmp_path: Path) -> None:
    node, source, archive = tmp_path / "clinic.ehr", tmp_path / "source.ndjson", tmp_path / "archive"
    told("init", node, "--organisation", "Clinic North")
    for status in ("final", "amended"):
        resources = [{"resourceType": "Patient", "id": "p"}, {"resourceType": "Patient", "id": "q"}]
        subject = {"reference": "Patient/p"}
        observation = {"resourceType": "Observation", "id": "o", "status": status, "subject": subject}
        source.write_text("".join(json.dumps(each) + "\n" for each in (*resources, observation)))
        told("import", node, source)
    held = told("hold", "add", node, "--record", "Observation/o", "--reason", "litigation")
    assert set(held) == {"id", "kind", "target", "reference", "reason", "since_ms"}
    assert [each["id"] for each in rows("hold", "list", node)] == [held["id"]]
    assert refused(3, "erase", node, "--record", "Observation/o") == "records.held"
    assert refused(3, "erase", node, "--patient", "Patient/p") == "records.held"
    assert told("prune", node, "--keep-versions", 1)["held"] == 1
    assert told("hold", "release", node, held["id"]) == {"released": held["id"]}
    assert refused(5, "hold", "release", node, held["id"]) == "records.hold_released"
    assert refused(4, "hold", "release", node, "00" * 16) == "records.no_hold"
    assert refused(8, "hold", "add", node, "--reason", "other") == "hold.one_target"
    dry = told("prune", node, "--keep-versions", 1, "--dry-run")
    assert set(dry) == {"dry_run", "versions", "held", "bytes", "blobs", "segments", "archives"}
    assert (dry["dry_run"], dry["versions"]) == (True, 1)
    assert told("prune", node, "--keep-versions", 1, "--archive", archive)["versions"] == 1
    assert told("retrieve", node, archive) == {"versions": 1, "there": 0, "erased": 0}
    assert refused(4, "retrieve", node, tmp_path / "nowhere") == "archive.not_there"
    assert refused(8, "prune", node) == "prune.one_policy"
    dry = told("erase", node, "--record", "Observation/o", "--dry-run")
    assert set(dry) == {"dry_run", "kind", "id", "records", "versions", "manifests"}
    assert (dry["records"], dry["versions"]) == (1, 2)
    erased = told("erase", node, "--record", "Observation/o")
    assert set(erased) == {"dry_run", "backup_keys_days", *ERASED}
    assert refused(4, "erase", node, "--record", "Observation/o") == "record.unknown"
    assert told("erase", node, "--patient", "Patient/p")["kind"] == "subject"
    assert refused(4, "erase", node, "--patient", "Patient/p") == "patient.unknown"
    assert refused(8, "erase", node) == "erasure.one_target"
    sound = told("fsck", node)
    assert sound["ok"] is True
    assert set(sound["erased"]) == {"transactions", "values", "items", "wraps"}  # type: ignore[call-overload]
    assert sound["erased"]["items"] > 0  # type: ignore[index]
    assert (sound["pruned"], sound["blobs"]) == (0, 0)
    standing = told("status", node)
    assert (standing["erasures"], standing["holds"], standing["records"]) == (2, 0, 1)
