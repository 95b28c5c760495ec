"""Opens a node and prints seconds and peak memory: `python -m benches.open_child FOLDER`."""

from __future__ import annotations

import json
import resource
import sys
import time

from ehrfast import Node


def main() -> None:
    """One opening, by the clock of this process."""
    start = time.perf_counter()
    with Node.open(sys.argv[1]):
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
