"""Measures all attacks and writes the table: `python -m tests.attack.table [--workers N] [--only TEXT] [FILE]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.attack.cases import ALL_CASES
from tests.attack.gateways import GatewayPool
from tests.attack.runner import AttackResult, markdown_table, run_attack


def main() -> None:
    """Run the attacks. The exit status is 1 if one has problems."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack.table", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="workers of the gateway (%(default)s)")
    parser.add_argument("--only", default="", help="only attacks whose names contain this")
    parser.add_argument("file", type=Path, nargs="?", help="file for the table; default: standard output")
    options = parser.parse_args()
    results: list[AttackResult] = []
    with tempfile.TemporaryDirectory(prefix="tritonic-attack-") as folder, GatewayPool(Path(folder)) as gateways:
        for case in ALL_CASES:
            if options.only not in case.name or (options.workers > 1 and not case.runs_on_two_workers):
                continue
            results.append(run_attack(gateways, case, options.workers))
            sys.stderr.write(f"{case.name}: {'; '.join(results[-1].problems()) or 'ok'}\n")
    table = markdown_table(results)
    if options.file:
        options.file.write_text(table)
    else:
        sys.stdout.write(table)
    sys.exit(any(result.problems() for result in results))


if __name__ == "__main__":
    main()
