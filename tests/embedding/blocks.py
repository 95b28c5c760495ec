"""Code blocks of the documentation, as a reader would copy them, and what they promise to print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PROMISE: Final = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """One block of a page.

    Args:
        heading: the nearest heading above it.
        promised: what its prints show, in order.
    """

    heading: str
    code: str
    promised: tuple[str, ...]


def code_blocks(page: str) -> list[CodeBlock]:
    """The Python blocks of a page below the root of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        heading = _HEADING.findall(text[: match.start()])[-1]
        found.append(CodeBlock(heading, match[1], tuple(_PROMISE.findall(match[1]))))
    return found
