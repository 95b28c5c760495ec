"""Batches of hashes against hashlib and blake3, in every tier of this processor and for several thread counts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import blake3
import cbor2
import numpy as np
import pytest
from ehrfast import _core
from ehrfast.errors import InvalidInputError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

USES = [
    "path",
    "leaf",
    "node",
    "blind",
    "timer",
    "pack",
    "key-commitment",
    "opening",
    "class",
    "wrap",
    "seal-to",
    "frame-section",
    "state-value",
    "entry",
    "piece",
    "batch",
    "index",
]

lengths = st.sampled_from([0, 1, 63, 64, 64, 64, 65, 1023, 1024, 1024, 1025]) | st.integers(0, 3000)
inputs = st.lists(lengths.flatmap(lambda size: st.binary(min_size=size, max_size=size)), max_size=40)


def joined(items: list[bytes]) -> tuple[bytes, NDArray[np.uint64]]:
    return b"".join(items), np.cumsum([0, *map(len, items)]).astype(np.uint64)


def keyed(use: str, data: bytes) -> bytes:
    key = blake3.blake3(b"", derive_key_context=f"ehrfast 2026-11 {use} v1").digest()
    return blake3.blake3(data, key=key).digest()


@given(inputs, st.sampled_from(USES))
def test_batches_equal_the_oracles(items: list[bytes], use: str) -> None:
    data, offsets = joined(items)
    assert [row.tobytes() for row in _core.blake3_digests(data, offsets)] == [blake3.blake3(x).digest() for x in items]
    assert [row.tobytes() for row in _core.sha256_digests(data, offsets)] == [hashlib.sha256(x).digest() for x in items]
    assert [row.tobytes() for row in _core.keyed_digests(use, data, offsets)] == [keyed(use, x) for x in items]


@given(st.binary(max_size=3000), st.sampled_from(USES))
def test_single_digests_equal_the_oracles(data: bytes, use: str) -> None:
    assert _core.blake3_digest(data) == blake3.blake3(data).digest()
    assert _core.keyed_digest(use, data) == keyed(use, data)


@given(
    st.sampled_from(USES),
    st.binary(min_size=32, max_size=32),
    st.lists(st.integers(0, 2**64 - 1) | st.binary(max_size=40), max_size=3),
)
def test_derived_keys_equal_the_oracle(use: str, key: bytes, info: list[object]) -> None:
    expected = blake3.blake3(key + cbor2.dumps(info), derive_key_context=f"ehrfast 2026-11 {use} v1").digest()
    assert _core.derive(use, key, info) == expected


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2048, 5000])
@pytest.mark.parametrize("size", [1, 64, 1024])
def test_batches_across_several_threads(count: int, size: int) -> None:
    items = [number.to_bytes(2, "big") * (size // 2) + b"x" * (size % 2) for number in range(count)]
    data, offsets = joined(items)
    assert [row.tobytes() for row in _core.blake3_digests(data, offsets)] == [blake3.blake3(x).digest() for x in items]
    assert [row.tobytes() for row in _core.sha256_digests(data, offsets)] == [hashlib.sha256(x).digest() for x in items]


def test_bytes_and_arrays_are_the_same_and_results_come_back_in() -> None:
    items = [bytes([number]) * number for number in range(100)]
    data, offsets = joined(items)
    array = np.frombuffer(data, dtype=np.uint8)
    expected = _core.blake3_digests(data, offsets)
    frozen = offsets.copy()
    frozen.flags.writeable = False
    for lent in (array, array.copy(), array.reshape(2, -1)):
        for given_offsets in (offsets, frozen):
            assert np.array_equal(_core.blake3_digests(lent, given_offsets), expected)
    assert expected.shape == (100, 32)
    assert not expected.flags.writeable
    assert _core.blake3_digest(expected) == blake3.blake3(expected.tobytes()).digest()
    window = _core.blake3_digests(data, offsets[10:21])
    assert np.array_equal(window, expected[10:20])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (np.arange(20, dtype=np.uint8)[::2], "input.not_contiguous"),
        (np.zeros((4, 5), dtype=np.uint8, order="F"), "input.not_contiguous"),
        (np.arange(20, dtype=np.uint16), "input.not_a_buffer"),
        (bytearray(20), "input.not_a_buffer"),
        (memoryview(bytes(20)), "input.not_a_buffer"),
        ("text", "input.not_a_buffer"),
        (None, "input.not_a_buffer"),
    ],
)
def test_other_buffers_are_refused(data: object, code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _core.blake3_digest(data)  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("offsets", "code", "details"),
    [
        (np.array([], dtype=np.uint64), "offsets.empty", {}),
        (np.array([0, 5, 4, 10], dtype=np.uint64), "offsets.descending", {"index": 2}),
        (np.array([0, 11], dtype=np.uint64), "offsets.out_of_range", {"offset": 11, "length": 10}),
        (np.array([0, 2**64 - 1], dtype=np.uint64), "offsets.out_of_range", {"offset": 2**64 - 1, "length": 10}),
        (np.array([0, 10], dtype=np.int64), "offsets.not_uint64", {}),
        (np.array([[0, 10]], dtype=np.uint64), "offsets.not_contiguous", {}),
        (np.array([0, 1, 10, 11], dtype=np.uint64)[::2], "offsets.not_contiguous", {}),
        ([0, 10], "offsets.not_uint64", {}),
    ],
)
def test_bad_offsets_are_refused(offsets: NDArray[np.uint64], code: str, details: dict[str, int]) -> None:
    for batch in (_core.blake3_digests, _core.sha256_digests):
        with pytest.raises(InvalidInputError) as caught:
            batch(bytes(10), offsets)
        assert caught.value.code == code
        assert dict(caught.value.details) == details


def test_unknown_uses_and_short_keys_are_refused() -> None:
    for use in ("", "Path", "salt", "path "):
        with pytest.raises(InvalidInputError) as caught:
            _core.keyed_digest(use, b"")
        assert caught.value.code == "digest.unknown_use"
    with pytest.raises(InvalidInputError) as caught:
        _core.derive("class", bytes(31), [])
    assert caught.value.code == "key.wrong_length"


def test_random_bytes_have_the_length_asked_for() -> None:
    assert _core.random_bytes(0) == b""
    assert len(_core.random_bytes(1000)) == 1000
    assert len({_core.random_bytes(16) for _ in range(100)}) == 100


REPORT = """
import json, numpy as np
from ehrfast import _core
data = bytes(at % 253 for at in range(64 * 3000))
offsets = np.arange(0, len(data) + 1, 64, dtype=np.uint64)
odd = np.array([0, *range(7, len(data), 97), len(data)], dtype=np.uint64)
hashes = [f(data, o).tobytes() for f in (_core.blake3_digests, _core.sha256_digests) for o in (offsets, odd)]
key = _core.SigningKey.from_seed(bytes(32))
signatures = [bytearray(key.sign(bytes([n % 256]))) for n in range(300)]
signatures[7][40] ^= 1
verdicts = _core.verify_signatures(key.public_key * 300, bytes(n % 256 for n in range(300)),
                                   np.arange(301, dtype=np.uint64), b"".join(map(bytes, signatures)))
print(json.dumps([_core.simd_tier(), _core.thread_count(), _core.blake3_digest(b"".join(hashes)).hex(),
                  np.flatnonzero(~verdicts).tolist()]))
"""


def run(program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **settings}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_every_tier_and_thread_count_gives_the_same_bytes() -> None:
    tiers = {"portable", _core.simd_tier()} | ({"avx2"} if _core.simd_tier() == "avx512" else set())
    seen = set()
    for tier in tiers:
        for threads in ("1", "2", "5"):
            done = run(REPORT, EHRFAST_SIMD=tier, EHRFAST_THREADS=threads)
            assert done.returncode == 0, done.stderr
            used, count, digest, bad = json.loads(done.stdout)
            assert (used, count, bad) == (tier, int(threads), [7])
            seen.add(digest)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("EHRFAST_SIMD", "sse9", "simd.unknown_tier"),
        ("EHRFAST_SIMD", "", "simd.unknown_tier"),
        ("EHRFAST_THREADS", "0", "pool.thread_count"),
        ("EHRFAST_THREADS", "-1", "pool.thread_count"),
        ("EHRFAST_THREADS", "many", "pool.thread_count"),
        ("EHRFAST_THREADS", "1025", "pool.thread_count"),
    ],
)
def test_wrong_settings_are_refused_by_name(name: str, value: str, code: str) -> None:
    done = run("import ehrfast._core", **{name: value})
    assert done.returncode != 0
    assert f"InvalidInputError: {code} ({name}={value!r})" in done.stderr


@pytest.mark.skipif(_core.simd_tier() == "avx512", reason="this processor has AVX-512")
def test_a_tier_the_processor_lacks_is_refused_by_name() -> None:
    done = run("import ehrfast._core", EHRFAST_SIMD="avx512")
    assert "InvalidInputError: simd.unsupported (EHRFAST_SIMD='avx512')" in done.stderr


FORK = """
import os, signal, numpy as np
from ehrfast import _core
data, offsets = bytes(64 * 20000), np.arange(0, 64 * 20000 + 1, 64, dtype=np.uint64)
before = _core.blake3_digests(data, offsets)
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = np.array_equal(_core.blake3_digests(data, offsets), before)
    os._exit(0 if same and _core.random_bytes(8) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.array_equal(_core.blake3_digests(data, offsets), before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    done = run(FORK, EHRFAST_THREADS="3")
    assert done.returncode == 0, done.stderr


@given(parts=st.lists(st.binary(max_size=3000), max_size=6))
def test_a_keyed_digest_bit_by_bit_is_that_of_the_whole(parts: list[bytes]) -> None:
    hasher = _core.KeyedHasher("pack-item")
    for number, part in enumerate(parts):
        assert hasher.digest() == _core.keyed_digest("pack-item", b"".join(parts[:number]))
        hasher.update(part)
    assert hasher.digest() == _core.keyed_digest("pack-item", b"".join(parts))
    with pytest.raises(InvalidInputError, match=r"digest\.unknown_use"):
        _core.KeyedHasher("nothing")
