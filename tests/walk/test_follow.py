"""docs/walk.md is what a running node does today, word for word."""

from __future__ import annotations

from pathlib import Path

from tests.walk.follow import PAGE, follow


def test_the_page_is_the_walk(tmp_path: Path) -> None:
    assert follow(tmp_path) == PAGE.read_text(encoding="utf-8"), "make walk writes the page again"
