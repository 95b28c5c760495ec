"""Audited reads from SQLite: the row, and an audit row synced before it is given out. Nothing is decided or opened."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path


class SqliteReads:
    """Plain contents by reference; one connection for each reader, one writer at a time."""

    def __init__(self, file: Path, contents: Sequence[tuple[str, bytes]], readers: int) -> None:
        self._connections = [
            sqlite3.connect(file, isolation_level=None, check_same_thread=False) for _ in range(readers)
        ]
        first = self._connections[0]
        first.execute("PRAGMA journal_mode=WAL")
        for connection in self._connections:
            connection.execute("PRAGMA synchronous=FULL")
        first.execute("CREATE TABLE record (reference TEXT PRIMARY KEY, content BLOB)")
        first.execute("CREATE TABLE audit (reader INTEGER, reference TEXT)")
        first.executemany("INSERT INTO record VALUES (?, ?)", contents)
        self._writing = threading.Lock()

    def read(self, reader: int, reference: str) -> bytes:
        """One content, after its audit row is synced."""
        connection = self._connections[reader]
        with self._writing:
            connection.execute("INSERT INTO audit VALUES (?, ?)", (reader, reference))
        row = connection.execute("SELECT content FROM record WHERE reference = ?", (reference,)).fetchone()
        content: bytes = row[0]
        return content

    def close(self) -> None:
        """Lets go of the file."""
        for connection in self._connections:
            connection.close()
