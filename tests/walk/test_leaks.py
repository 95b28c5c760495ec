"""Nothing of a patient is in any file, name or error of a node: a marked name is searched in every byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from ehrfast import Node
from ehrfast.errors import EhrfastError
from ehrfast.synthetic import generate_bundles

MARK = "Zyxwvutmark"


def test_no_marked_byte_reaches_the_disk_or_an_error(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, bundle in enumerate(generate_bundles(2, seed=3, marker=MARK)):
        assert MARK.encode() in bundle
        (source / f"{number}.json").write_bytes(bundle)
    folder = tmp_path / "clinic.ehr"
    with Node.create(folder, organisation="Clinic North") as node:
        node.import_fhir(source)
        doctor = node.identities.enrol("physician-1", role="physician")
        with node.session(doctor, purpose="TREAT") as session:
            row = session.list("Patient")[0]
            record = session.read(row.reference)
            assert MARK.encode() in record.content
            shown = [repr(node), repr(session), repr(row), repr(record)]
            with pytest.raises(EhrfastError) as refused:
                session.read(f"Patient/{MARK}")
            shown += [str(refused.value), repr(refused.value)]
        logical_id = row.reference.partition("/")[2]
    assert not [text for text in shown if MARK in text or logical_id in text]
    for file in folder.rglob("*"):
        assert MARK not in file.name
        if file.is_file():
            content = file.read_bytes()
            assert MARK.encode() not in content, file.name
            assert logical_id.encode() not in content, file.name
