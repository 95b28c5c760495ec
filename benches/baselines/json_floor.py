"""The floor under any import in Python: a JSON package reads the same files, parses and writes them again.

Nothing is sealed, signed, ordered or kept.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson


def with_json(files: Sequence[Path]) -> int:
    """Bytes written for all files by the standard library."""
    return _each(files, json.loads, lambda tree: json.dumps(tree, separators=(",", ":")).encode())


def with_orjson(files: Sequence[Path]) -> int:
    """The same by orjson."""
    return _each(files, orjson.loads, orjson.dumps)


def _each(files: Sequence[Path], parse: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> int:
    written = 0
    for file in files:
        data = file.read_bytes()
        written += len(write(parse(gzip.decompress(data) if file.suffix == ".gz" else data)))
    return written
