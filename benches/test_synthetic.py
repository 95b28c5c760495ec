"""Making patients, beside the floor any maker of JSON stands on: `json.dumps` of the same trees, already made."""

from __future__ import annotations

import json
from typing import Any

from ehrfast.synthetic import describe_bundles, generate_bundles, generate_resources

from benches.say import say

PATIENTS = 20
RESOURCES = 5_000


def _say(benchmark: Any, side: str, entries: int) -> None:
    params = f"{PATIENTS} patients; the floor writes trees already made"
    say(benchmark, "synthetic", "Bundles", side, items=entries, unit="entries/s", params=params)


def test_generate_bundles(benchmark: Any) -> None:
    _say(benchmark, "ehrfast", describe_bundles(PATIENTS).entries)
    benchmark(lambda: sum(map(len, generate_bundles(PATIENTS))))


def test_generate_resources(benchmark: Any) -> None:
    benchmark.extra_info["resources"] = RESOURCES
    benchmark(lambda: sum(map(len, generate_resources(RESOURCES))))


def test_floor_json_dumps(benchmark: Any) -> None:
    """The standard library writing the trees of the same Bundles; it draws nothing and decides nothing."""
    trees = [json.loads(bundle) for bundle in generate_bundles(PATIENTS)]
    _say(benchmark, "floor: json.dumps", sum(len(tree["entry"]) for tree in trees))
    benchmark(lambda: sum(len(json.dumps(tree, separators=(",", ":")).encode()) for tree in trees))
