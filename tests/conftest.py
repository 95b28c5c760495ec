"""What tests share: outside material where it is present, and nodes made of generated patients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ehrfast.errors import EhrfastError

from tests.s3 import S3Server, running_s3

SHARED = Path(os.environ.get("EHRFAST_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def require(name: str, present: bool) -> None:
    """Skips when an optional part is missing, or fails when EHRFAST_REQUIRE lists it."""
    if present:
        return
    message = f"{name} is not here"
    if name in os.environ.get("EHRFAST_REQUIRE", "").split(","):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def synthea() -> Path:
    """The folder of Synthea Bundles."""
    folder = SHARED / "data" / "synthea"
    require("synthea", folder.is_dir())
    return folder


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3-compatible server; each test makes its own buckets in it."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Three generated patients as Bundle files."""
    from ehrfast.synthetic import generate_bundles

    folder = tmp_path / "patients"
    folder.mkdir()
    for number, bundle in enumerate(generate_bundles(3, seed=7)):
        (folder / f"{number}.json").write_bytes(bundle)
    return folder


def code_of(error: pytest.ExceptionInfo[EhrfastError]) -> str:
    """The stable code an error carries."""
    return error.value.code
