"""Soak the default models: `make soak`, `python -m benchmarks.soak`. Exit status 1 where anything was wrong."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import soak
from benchmarks.models import CHAT_MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=soak.MINUTES, help="of load (%(default)s); three or four more in all"
    )
    parser.add_argument("--faults", action="store_true", help="kill Triton under load, too, and let it come back")
    parser.add_argument("--attack", action="store_true", help="let attackers be among the callers (tests/attack)")
    parser.add_argument("--seed", type=int, default=17, help="of what is asked (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results", help="folder")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="the model repository")
    asked = parser.parse_args(arguments)
    from benchmarks.machine import machine, versions
    from benchmarks.result_files import RunConditions, write_results

    began, now = time.monotonic(), datetime.now(UTC)
    under = RunConditions(f"{now:%Y-%m-%d %H:%M} UTC", machine(), versions(), None, False)
    tables = soak.run(
        asked.repository, CHAT_MODEL, asked.minutes, faults=asked.faults, attacked=asked.attack, seed=asked.seed
    )
    asked.results.mkdir(parents=True, exist_ok=True)
    name = "soak-attack" if asked.attack else "soak"
    print(write_results(asked.results, name, tables, under, time.monotonic() - began), flush=True)
    missed = [bar for table in tables for bar in table.thresholds if not bar.met]
    for bar in missed:
        print(f"Wrong: {bar.name}: {bar.found:.{bar.digits}f}{bar.unit}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
