"""C2SP CCTV ed25519 vectors (ed25519vectors.json): small and mixed order, non-canonical encodings.

ZIP-215 hashes R and A as received, so it accepts all but those flagged `reencoded_k`, which were made by hashing
another encoding; the slow twin says which of them hold all the same.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from ehrfast import _core
from ehrfast.errors import VerificationError

from tests.reference import ed25519

SHARED = Path(os.environ.get("EHRFAST_SHARED", Path(__file__).parents[3] / "shared"))
VECTORS = SHARED / "vectors" / "ed25519" / "cctv.json"

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason=f"no vectors at {VECTORS}")

Item = tuple[bytes, bytes, bytes]


def vectors() -> list[tuple[Item, bool]]:
    return [
        (
            (bytes.fromhex(vector["key"]), vector["msg"].encode(), bytes.fromhex(vector["sig"])),
            "reencoded_k" in (vector["flags"] or []),
        )
        for vector in json.loads(VECTORS.read_text())
    ]


def together(items: list[Item]) -> list[bool]:
    offsets = np.cumsum([0, *(len(message) for _, message, _ in items)]).astype(np.uint64)
    keys, messages, signatures = (b"".join(column) for column in zip(*items, strict=True))
    return list(_core.verify_signatures(keys, messages, offsets, signatures))


def alone(item: Item) -> bool:
    try:
        _core.verify_signature(*item)
    except VerificationError:
        return False
    return True


def test_every_vector_hashed_as_received_holds() -> None:
    verdicts = [(alone(item), reencoded) for item, reencoded in vectors()]
    assert len(verdicts) == 914
    assert all(holds for holds, reencoded in verdicts if not reencoded)
    assert sum(holds for holds, reencoded in verdicts if reencoded) == 58


def test_the_slow_twin_agrees() -> None:
    for item, _ in random.Random(1).sample(vectors(), 60):
        assert alone(item) == ed25519.verify(*item)


def test_any_company_gives_the_same_verdicts() -> None:
    rng = random.Random(2)
    items = [item for item, _ in vectors()]
    key = _core.SigningKey.from_seed(bytes(32))
    items += [(key.public_key, message, key.sign(message)) for message in map(bytes, range(100))]
    items += [(public_key, message + b"!", signature) for public_key, message, signature in items[::7]]
    expected = {item: alone(item) for item in items}
    for size in (1, 2, 3, 5, 8, 17, 64, 300, len(items)):
        for _ in range(20):
            chosen = [rng.choice(items) for _ in range(size)]
            assert together(chosen) == [expected[item] for item in chosen]
