"""Work is counted the same on every Python: the toy contracts run under each interpreter found, one process each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import json
from types import SimpleNamespace
from ehrfast.contracts import BlockContext, Registry, Runtime

class View(dict):
    def begin(self, salt): pass
    def get(self, contract, key): return super().get((contract, key))
    def put(self, contract, key, value): self[contract, key] = value
    def delete(self, contract, key): self.pop((contract, key), None)
    def accept(self): return 0
    def drop_frame(self): pass

class Call(SimpleNamespace):
    def __len__(self): return 300

registry = Registry([f"tests.contracts_toy.{name}" for name in ("counter", "relay", "governance")])
runtime, view, block = Runtime(registry), View(), BlockContext("toy", 1, 1000)
runtime.genesis(view, block, SimpleNamespace(organisations=()))
outcomes = []
for contract, method, args in [
    ("relay", "spend", {1: 100}), ("relay", "spend", {1: 2000}), ("relay", "both", {1: "a", 2: "b"}),
    ("relay", "down", {1: 3}), ("relay", "down", {1: 4}), ("relay", "wrong", {1: 5}),
    ("counter", "add", {1: "a", 2: 3}),
]:
    call = Call(id=bytes(32), sender=bytes(32), contract=contract, method=method, lane=2, salt=bytes(16),
                attachments=(), args=args)
    outcome = runtime.execute(view, call, block, 3)
    outcomes.append([outcome.code, outcome.work])
print(json.dumps([registry.contract_set_hash().hex(), outcomes]))
"""
EXPECTED = [
    [0, 10_319],
    ["contract.out_of_work", 2_000_000],
    [0, 1_133],
    [0, 822],
    ["contract.too_deep", 922],
    ["contract.broken", 219],
    [0, 310],
]


def interpreters() -> list[str]:
    """This one, those named python3.11 and later on the path, and those in EHRFAST_PYTHONS."""
    named = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    more = os.environ.get("EHRFAST_PYTHONS", "").split(os.pathsep)
    return list(dict.fromkeys([sys.executable, *(path for path in [*named, *more] if path)]))


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: Path(path).name)
@pytest.mark.parametrize("hash_seed", ["0", "1", "12345"])
def test_work_is_the_same_on_every_python(interpreter: str, hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'python'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": hash_seed}
    version = "import sys; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([interpreter, "-c", version], env=environment, check=False).returncode:
        pytest.skip(f"{interpreter} does not run, or is older than 3.11")
    ran = subprocess.run([interpreter, "-B", "-c", PROBE], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    set_hash, outcomes = json.loads(ran.stdout)
    assert outcomes == EXPECTED
    assert len(set_hash) == 64
