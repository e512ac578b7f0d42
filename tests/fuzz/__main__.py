"""``python -m fuzz`` (in ``tests/``): does cases and prints how they ended, and every one that ended badly."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz.runner import FINE, run, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to do one again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--accepted", action="store_true", help="list what was accepted and refused too")
    given = parser.parse_args()
    started, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        cases = range(given.first, given.first + given.cases)
        for result in run(Path(name), cases, given.seed, until=started + 60 * given.minutes):
            results.append(result)
            if given.accepted or result.outcome not in FINE:
                print(f"{result.number} {result.outcome}: {result.kind}: {result.spoilt}: {result.said}", flush=True)
            if len(results) % 1000 == 0:
                print(f"{len(results):,} cases in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{len(results):,} cases, seed {given.seed}, {time.monotonic() - started:.0f} s\n{table(results)}")
    sys.exit(any(result.outcome not in FINE for result in results))


if __name__ == "__main__":
    main()
