"""Row `seal_records`: 256 records of 2 KiB for one class key, beside the same steps in Python, and AES-GCM alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from ehrfast._core import ClassKey, seal_records

from benches.baselines.sealing import encrypt_alone, seal_in_python
from benches.say import say
from benches.workload import QUICK

RECORDS = 256
RECORD_BYTES = 2048
ROUNDS = 5 if QUICK else 101
DATA = np.random.default_rng(1).bytes(RECORDS * RECORD_BYTES)
CONTENTS = [DATA[start : start + RECORD_BYTES] for start in range(0, len(DATA), RECORD_BYTES)]
AAD = bytes(60)


def _say(benchmark: Any, side: str) -> None:
    params = f"{RECORDS} records of 2 KiB, one class key"
    say(benchmark, "seal_records", "Python, 2 KiB", side, items=RECORDS, unit="records/s", params=params, threaded=True)


def test_seal_records(benchmark: Any) -> None:
    key = ClassKey.derive(bytes(32), bytes(16), bytes(16), "observation", bytes(16))
    starts = np.arange(RECORDS, dtype=np.uint64) * np.uint64(RECORD_BYTES)
    spans = np.stack([starts, starts + np.uint64(RECORD_BYTES)], axis=1)
    drafts = [(number.to_bytes(16, "big"), 1, "observation", (key,)) for number in range(RECORDS)]
    _say(benchmark, "ehrfast")
    pack = benchmark.pedantic(seal_records, args=("bench", DATA, spans, drafts), rounds=ROUNDS, warmup_rounds=2)
    assert len(pack) == RECORDS


def _lengths(sealed: list[Any]) -> int:
    """Parts stay in the process that made them, as they would be written by it."""
    return len(sealed)


def test_the_same_steps(benchmark: Any, processes: Any) -> None:
    _say(benchmark, "the same steps with cryptography and blake3")
    work = processes(lambda part: _lengths(seal_in_python(part, bytes(32), AAD)), CONTENTS)
    benchmark.pedantic(work, rounds=ROUNDS, warmup_rounds=1)


def test_encryption_alone(benchmark: Any, processes: Any) -> None:
    _say(benchmark, "AES-256-GCM alone by cryptography")
    work = processes(lambda part: _lengths(encrypt_alone(part, AAD)), CONTENTS)
    benchmark.pedantic(work, rounds=ROUNDS, warmup_rounds=1)
