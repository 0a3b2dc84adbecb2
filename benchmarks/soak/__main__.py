"""Runs the soak on the default models: `make soak`, `python -m benchmarks.soak`.

The exit status is 1 if a target is missed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import soak
from benchmarks.models import CHAT_MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, write its results, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    minutes = "minutes of load (%(default)s); the whole run takes three or four more"
    parser.add_argument("--minutes", type=float, default=soak.MINUTES, help=minutes)
    parser.add_argument("--faults", action="store_true", help="also kill Triton under load, and restart it")
    parser.add_argument("--attack", action="store_true", help="add attackers to the callers (tests/attack)")
    parser.add_argument("--seed", type=int, default=17, help="seed of the requests and their order (%(default)s)")
    results = Path(__file__).parents[1] / "results"
    parser.add_argument("--results", type=Path, default=results, help="folder for the results")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="the model repository")
    options = parser.parse_args(arguments)
    from benchmarks.machine import machine, versions
    from benchmarks.result_files import RunConditions, write_results

    began, now = time.monotonic(), datetime.now(UTC)
    conditions = RunConditions(f"{now:%Y-%m-%d %H:%M} UTC", machine(), versions(), None, False)
    tables = soak.run(
        options.repository,
        CHAT_MODEL,
        options.minutes,
        faults=options.faults,
        attacked=options.attack,
        seed=options.seed,
    )
    options.results.mkdir(parents=True, exist_ok=True)
    name = "soak-attack" if options.attack else "soak"
    print(write_results(options.results, name, tables, conditions, time.monotonic() - began), flush=True)
    missed = [threshold for table in tables for threshold in table.thresholds if not threshold.met]
    for threshold in missed:
        value = f"{threshold.value:.{threshold.digits}f}{threshold.unit}"
        print(f"Missed: {threshold.name}: {value}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
