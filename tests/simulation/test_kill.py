"""kill -9 in the middle of an import: what was acknowledged is there, and fsck finds nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from ehrfast import Node

WORKER = """
import sys
from ehrfast import Node
from ehrfast.access.import_fhir import read_documents
from pathlib import Path
with Node.open(sys.argv[1]) as node:
    print("open", flush=True)
    for file in sorted(Path(sys.argv[2]).iterdir()):
        node.import_fhir(file)
        print(node.chain.published.tree_size, flush=True)
"""


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    from ehrfast.synthetic import generate_bundles

    source = tmp_path / "in"
    source.mkdir()
    for number, bundle in enumerate(generate_bundles(200, seed=11)):
        (source / f"{number:03}.json").write_bytes(bundle)
    folder = tmp_path / "clinic.ehr"
    Node.create(folder, organisation="Clinic North").close()
    dice = random.Random(20261124)
    environment = {**os.environ, "PYTHONPATH": "python"}
    for _ in range(int(os.environ.get("EHRFAST_KILLS", "50"))):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(source)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
        time.sleep(dice.uniform(0.0, 0.08))
        worker.send_signal(signal.SIGKILL)
        acknowledged = [int(line) for line in worker.stdout.read().split()]
        worker.wait()
        with Node.open(folder) as node:
            assert node.chain.published.tree_size >= max(acknowledged, default=0)
            assert node.fsck().ok
