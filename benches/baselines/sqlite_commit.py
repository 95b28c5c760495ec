"""Signed rows in SQLite: write-ahead log, synchronous=FULL, so every commit is synced. No order proof, no execution."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from benches.baselines.signatures import Signed, verify_with_cryptography


class SqliteLedger:
    """One table of signed messages by their digest."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE entry (id BLOB PRIMARY KEY, sender BLOB, body BLOB, signature BLOB)")

    def write(self, signed: Sequence[Signed], rows: int) -> None:
        """Checks and keeps messages, so many rows in each database transaction."""
        for start in range(0, len(signed), rows):
            part = signed[start : start + rows]
            verify_with_cryptography(part)
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "INSERT INTO entry VALUES (?, ?, ?, ?)",
                [(sha256(body).digest(), key, body, signature) for key, body, signature in part],
            )
            self._database.execute("COMMIT")

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()
