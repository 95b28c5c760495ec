"""Rows `prove_inclusion` at a million leaves and `verify_evidence`, beside one Ed25519 verification."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from ehrfast import Node, verify
from ehrfast._core import Log, verify_signature
from ehrfast.model.proof import Evidence
from ehrfast.synthetic import generate_bundles

from benches.say import say
from benches.workload import QUICK, signed_messages

LEAVES = 100_000 if QUICK else 1_000_000
ROUNDS = 200 if QUICK else 5_000


def test_prove_inclusion(benchmark: Any) -> None:
    log = Log()
    log.append_hashes(np.random.default_rng(1).bytes(32 * LEAVES))
    indices = cycle(range(0, LEAVES, 997))
    say(
        benchmark, "prove_inclusion", f"{LEAVES:,} leaves", "ehrfast", items=1, unit="us p50", params="from Python"
    )
    benchmark.pedantic(
        log.prove_inclusion, setup=lambda: ((next(indices), LEAVES), {}), rounds=ROUNDS, warmup_rounds=100
    )


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evidence, str, bytes]:
    """Evidence of one record with its content, and the key it is checked with."""
    folder = tmp_path_factory.mktemp("evidence")
    for number, bundle in enumerate(generate_bundles(3)):
        (folder / f"{number}.json").write_bytes(bundle)
    with Node.create(folder / "node", organisation="Bench") as node:
        node.import_fhir(*sorted(folder.glob("*.json")))
        doctor = node.identities.enrol("physician-1", role="physician")
        with node.session(doctor, purpose="TREAT") as session:
            reference = session.list("Observation", limit=1)[0].reference
            record = session.read(reference)
            return session.prove(reference, disclose=True), node.verifier_key, record.content


VARIANT = "a record with its content"


def _say(benchmark: Any, side: str) -> None:
    params = "from text to a checked record: signature, log and state proofs, commitment"
    say(benchmark, "verify_evidence", VARIANT, side, items=1, unit="us p50", params=params)


def test_verify_evidence(benchmark: Any, evidence: tuple[Evidence, str, bytes], tmp_path: Path) -> None:
    shown, key, content = evidence
    _say(benchmark, "ehrfast")
    benchmark.pedantic(
        verify, args=(shown.text,), kwargs={"key": key, "content": content}, rounds=ROUNDS, warmup_rounds=50
    )


def test_one_verification_by_cryptography(benchmark: Any) -> None:
    [(key, message, signature)] = signed_messages("lone", 1, 1)
    _say(benchmark, "one verification by cryptography")
    benchmark.pedantic(
        lambda: Ed25519PublicKey.from_public_bytes(key).verify(signature, message), rounds=ROUNDS, warmup_rounds=50
    )


def test_one_verification_of_ours(benchmark: Any) -> None:
    [(key, message, signature)] = signed_messages("lone", 1, 1)
    _say(benchmark, "one verification by our own core")
    benchmark.pedantic(verify_signature, args=(key, message, signature), rounds=ROUNDS, warmup_rounds=50)
