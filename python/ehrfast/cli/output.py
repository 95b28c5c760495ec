"""How commands answer: an object or rows, for programs with ``--json`` and for people without.

Nothing is written before a command has succeeded, so standard output is either whole or empty.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Answer with JSON on standard output; a failure is JSON on standard error.")
]
As = Annotated[
    str, typer.Option("--as", metavar="IDENTITY", help="Who asks: 32 hex digits, as 'ehrfast keys list' shows them.")
]
Purpose = Annotated[
    str, typer.Option("--purpose", metavar="CODE", help="Purpose of use: TREAT, PATRQT, HPAYMT, HOPERAT, HRESCH …")
]
Progress = Callable[[int, int], None]
_LEFT_TO_RIGHT: Final = "  "


def answer(value: Mapping[str, object], as_json: bool, lines: Sequence[str] | None = None) -> None:
    """Writes one object; for people the given lines, or a line for each of its members."""
    if as_json:
        _write(json.dumps(value, ensure_ascii=False) + "\n")
        return
    width = max((len(name) for name in value), default=0)
    told = [f"{name.replace('_', ' '):<{width}}  {each}" for name, each in value.items()] if lines is None else lines
    _write("".join(f"{line}\n" for line in told))


def answer_rows(rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """Writes rows: NDJSON, or columns."""
    if as_json:
        _write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    if not rows:
        return
    table = [list(rows[0]), *(["" if each is None else str(each) for each in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (_LEFT_TO_RIGHT.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in table)
    _write("".join(f"{line.rstrip()}\n" for line in lines))


def answer_bytes(content: bytes) -> None:
    """Writes bytes as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def told(line: str) -> None:
    """Tells people something beside the answer."""
    sys.stderr.write(f"{line}\n")


def utc(time: datetime) -> str:
    """ISO 8601 in UTC with milliseconds.

    >>> utc(datetime(2026, 6, 30, 12, tzinfo=UTC))
    '2026-06-30T12:00:00.000Z'
    """
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def progress(label: str) -> Iterator[Progress | None]:
    """A bar on standard error while it is a terminal; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
