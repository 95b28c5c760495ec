"""Row `signature_verify_batch`: 1,024 signatures over 256 bytes, under 16 keys seen before, and under new ones."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benches.baselines.signatures import verify_with_cryptography, verify_with_kept_keys, verify_with_pynacl
from benches.say import say
from benches.workload import (
    BATCH,
    MESSAGE_BYTES,
    QUICK,
    REGISTERED_KEYS,
    columns,
    fresh_messages,
    signed_messages,
    verify_columns,
)

ROUNDS = 5 if QUICK else 41
RIVAL_ROUNDS = 3 if QUICK else 11


def _say(benchmark: Any, variant: str, side: str) -> None:
    params = f"{BATCH:,} messages of {MESSAGE_BYTES} B; a rival on two threads is two processes"
    say(
        benchmark, "signature_verify_batch", variant, side, items=BATCH, unit="signatures/s", params=params,
        threaded=True,
    )  # fmt: skip


REGISTERED = f"Python, {REGISTERED_KEYS} registered keys"
UNSEEN = "Python, keys never seen"


def test_registered_keys(benchmark: Any) -> None:
    given = columns(signed_messages("registered", REGISTERED_KEYS))
    _say(benchmark, REGISTERED, "ehrfast")
    benchmark.pedantic(verify_columns, args=given, rounds=ROUNDS, warmup_rounds=2)


def test_unseen_keys(benchmark: Any) -> None:
    _say(benchmark, UNSEEN, "ehrfast")
    benchmark.pedantic(verify_columns, setup=lambda: (columns(fresh_messages()), {}), rounds=ROUNDS)


@pytest.mark.parametrize("variant", [REGISTERED, UNSEEN])
@pytest.mark.parametrize(
    ("side", "verify"), [("cryptography", verify_with_cryptography), ("PyNaCl", verify_with_pynacl)]
)
def test_rivals(benchmark: Any, processes: Any, variant: str, side: str, verify: Any) -> None:
    signed = signed_messages("registered", REGISTERED_KEYS) if variant == REGISTERED else fresh_messages()
    _say(benchmark, variant, side)
    benchmark.pedantic(processes(verify, signed), rounds=RIVAL_ROUNDS, warmup_rounds=1)


def test_rival_with_kept_keys(benchmark: Any, processes: Any) -> None:
    signed = signed_messages("registered", REGISTERED_KEYS)
    keys = {key: Ed25519PublicKey.from_public_bytes(key) for key, _, _ in signed}
    _say(benchmark, REGISTERED, "cryptography, key objects kept")
    work = processes(lambda part: verify_with_kept_keys(part, keys), signed)
    benchmark.pedantic(work, rounds=RIVAL_ROUNDS, warmup_rounds=1)
