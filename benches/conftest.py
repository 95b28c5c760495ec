"""Keeps the host's name out of result files; the report describes the machine itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benches.baselines.threads import OnProcessors


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """The plugin's description names the host."""
    machine_info.clear()


def pytest_benchmark_generate_commit_info(config: Any) -> dict[str, Any]:
    """The commit stands with the machine, in the report."""
    return {}


@pytest.fixture
def processes() -> Iterator[Any]:
    """Makes a rival that runs on as many processors as we do."""
    made: list[OnProcessors] = []

    def make(work: Any, items: Any) -> OnProcessors:
        made.append(OnProcessors(work, items))
        return made[-1]

    yield make
    for one in made:
        one.close()
