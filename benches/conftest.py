"""Keeps the host's name out of result files; the report describes the machine itself."""

from __future__ import annotations

from typing import Any


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """The plugin's description names the host."""
    machine_info.clear()


def pytest_benchmark_generate_commit_info(config: Any) -> dict[str, Any]:
    """The commit stands with the machine, in the report."""
    return {}
