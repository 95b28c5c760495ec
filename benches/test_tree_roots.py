"""Rows `blake3_tree_root` and `rfc6962_root` from Python, beside loops over hashlib and the `blake3` package."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from ehrfast._core import keyed_digest, log_root, pack_root

from benches.baselines.tree_roots import blake3_root, rfc6962_root, sha256_root
from benches.say import say
from benches.workload import GO_ROOT, QUICK

LEAVES = 2**16 if QUICK else 2**20
LEAF_BYTES = 97
ROUNDS = 3 if QUICK else 15
RIVAL_ROUNDS = 2 if QUICK else 3
PACK = "Python, 32 B leaves"
LOG = "Python, 97 B leaves"
_KEY = blake3(b"", derive_key_context="ehrfast 2026-11 pack-node v1").digest()


@pytest.fixture(scope="module")
def digests() -> bytes:
    return np.random.default_rng(1).bytes(32 * LEAVES)


@pytest.fixture(scope="module")
def log() -> tuple[bytes, Any]:
    """Leaves of a transaction's length, with the bytes the Go rival makes for itself."""
    data = np.resize(np.arange(251, dtype=np.uint8), LEAF_BYTES * LEAVES).tobytes()
    return data, np.arange(LEAVES + 1, dtype=np.uint64) * LEAF_BYTES


def _say(benchmark: Any, row: str, variant: str, side: str) -> None:
    params = f"{LEAVES:,} leaves; a rival on two threads is two processes, each with half the tree"
    say(benchmark, row, variant, side, items=LEAVES, unit="leaves/s", params=params, threaded=True)


def test_pack_root(benchmark: Any, digests: bytes) -> None:
    _say(benchmark, "blake3_tree_root", PACK, "ehrfast")
    benchmark.pedantic(pack_root, args=(digests,), rounds=ROUNDS, warmup_rounds=1)


def _parts(digests: bytes) -> list[bytes]:
    return [digests[start : start + 32] for start in range(0, len(digests), 32)]


def test_loop_over_hashlib(benchmark: Any, digests: bytes, processes: Any) -> None:
    _say(benchmark, "blake3_tree_root", PACK, "hashlib (SHA-256)")
    benchmark.pedantic(processes(sha256_root, _parts(digests)), rounds=RIVAL_ROUNDS)


def test_loop_over_blake3(benchmark: Any, digests: bytes, processes: Any) -> None:
    _say(benchmark, "blake3_tree_root", PACK, "blake3 package, one by one")

    def half(part: Any) -> bytes:
        return blake3_root(part, _KEY)

    roots = benchmark.pedantic(processes(half, _parts(digests)), rounds=RIVAL_ROUNDS)
    assert keyed_digest("pack", LEAVES.to_bytes(8, "big") + blake3_root(roots, _KEY)) == pack_root(digests)


def test_log_root(benchmark: Any, log: tuple[bytes, Any]) -> None:
    _say(benchmark, "rfc6962_root", LOG, "ehrfast")
    root = benchmark.pedantic(log_root, args=log, rounds=ROUNDS, warmup_rounds=1)
    told = os.environ.get(GO_ROOT)
    assert told in (None, root.hex()), "the rival in Go finds another root"
    benchmark.extra_info["root"] = root.hex()


def test_log_loop_over_hashlib(benchmark: Any, log: tuple[bytes, Any], processes: Any) -> None:
    _say(benchmark, "rfc6962_root", LOG, "hashlib")
    data, offsets = log
    leaves = [data[start:end] for start, end in pairwise(offsets.tolist())]
    benchmark.pedantic(processes(rfc6962_root, leaves), rounds=RIVAL_ROUNDS)
