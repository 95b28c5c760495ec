"""Real data: every resource of the Synthea Bundles goes in, none is rejected, and each comes back byte for byte."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ehrfast import Node


def raw_resources(data: bytes) -> dict[str, bytes]:
    """Each resource's bytes by reference, found with the standard library's decoder alone."""
    text = data.decode()
    decoder = json.JSONDecoder()
    found = {}
    position = text.index('"entry"')
    marker = '"resource":'
    while (start := text.find(marker, position)) >= 0:
        start += len(marker)
        start += len(text[start:]) - len(text[start:].lstrip()) if text[start].isspace() else 0
        resource, end = decoder.raw_decode(text, start)
        found[f"{resource['resourceType']}/{resource['id']}"] = text[start:end].encode()
        position = end
    return found


def test_synthea_comes_back_byte_for_byte(tmp_path: Path, synthea: Path) -> None:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as node:
        report = node.import_fhir(synthea)
        assert report.rejected == ()
        assert report.resources == 17_413
        doctor = node.identities.enrol("physician-1", role="physician")
        files = [raw_resources(gzip.decompress(file.read_bytes())) for file in sorted(synthea.iterdir())]
        assert sum(len(file) for file in files) == 17_413

        def compare(resources: dict[str, bytes]) -> list[str]:
            with node.session(doctor, purpose="TREAT") as session:
                return [name for name, raw in resources.items() if session.read(name).content != raw]

        with ThreadPoolExecutor(8) as readers:  # each read waits for its audit event: together they share the syncs
            assert [name for different in readers.map(compare, files) for name in different] == []
        assert node.fsck().ok
