"""Every resource of 60 published Synthea patients is found where an independent scanner finds it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from ehrfast import _core

from tests.reference.bundle import split_bundle

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EHRFAST_SHARED", ROOT.parent / "shared"))
FILES = sorted((SHARED / "data" / "synthea").glob("*.json.gz"))

pytestmark = pytest.mark.skipif(not FILES, reason=f"no Synthea files below {SHARED}; set EHRFAST_SHARED")


def test_there_are_17413_resources_and_none_is_rejected() -> None:
    counts = []
    for file in FILES:
        split = _core.split_resources(gzip.decompress(file.read_bytes()))
        assert split.kind == "Bundle:transaction"
        assert split.rejected() == []
        counts.append(len(split))
    assert sum(counts) == 17_413


@pytest.mark.parametrize("file", FILES[:: max(1, len(FILES) // 6)], ids=lambda file: file.name[:8])
def test_ranges_and_texts_equal_the_slow_twin(file: Path) -> None:
    data = gzip.decompress(file.read_bytes())
    split = _core.split_resources(data)
    expected = split_bundle(data)
    assert split.spans.tolist() == [[entry.start, entry.end] for entry in expected]
    assert split.entries.tolist() == [entry.number for entry in expected]
    for row, entry in zip(split.rows(), expected, strict=True):
        patient = f"Patient/{entry.id}" if entry.type == "Patient" else entry.subject
        assert row == (entry.type, entry.id, entry.full_url, patient, entry.method)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name[:8])
def test_every_range_is_the_resource_json_reads(file: Path) -> None:
    data = gzip.decompress(file.read_bytes())
    split = _core.split_resources(data)
    resources = [entry["resource"] for entry in json.loads(data)["entry"]]
    patients = [row[3] for row in split.rows()]
    assert [json.loads(split.content(index)) for index in range(len(split))] == resources
    for index, resource in enumerate(resources):
        assert split.content(index)[:1] + split.content(index)[-1:] == b"{}"
        described = _core.describe_resource(split.content(index))
        assert described[:2] == (resource["resourceType"], resource["id"])
        assert described[2] == patients[index]
