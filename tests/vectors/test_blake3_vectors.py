"""The vectors of the BLAKE3 repository (test_vectors.json, CC0) through the module."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from ehrfast import _core

SHARED = Path(os.environ.get("EHRFAST_SHARED", Path(__file__).parents[3] / "shared"))
VECTORS = SHARED / "vectors" / "blake3" / "test_vectors.json"


@pytest.mark.skipif(not VECTORS.exists(), reason=f"no vectors at {VECTORS}")
def test_plain_hashes_one_by_one_and_together() -> None:
    cases = json.loads(VECTORS.read_text())["cases"]
    inputs = [bytes(at % 251 for at in range(case["input_len"])) for case in cases]
    expected = [bytes.fromhex(case["hash"])[:32] for case in cases]
    assert [_core.blake3_digest(item) for item in inputs] == expected
    # Twelve of each, so that the inputs of one length really share lanes.
    inputs, expected = inputs * 12, expected * 12
    offsets = np.cumsum([0, *map(len, inputs)]).astype(np.uint64)
    digests = _core.blake3_digests(b"".join(inputs), offsets)
    assert [row.tobytes() for row in digests] == expected
