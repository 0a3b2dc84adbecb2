"""Measure all attacks and write the table: `python -m tests.attack.table [--workers N] [--only TEXT] [FILE]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.attack.cases import ALL_CASES
from tests.attack.gateways import GatewayPool
from tests.attack.runner import AttackResult, markdown_table, run_attack


def main() -> None:
    """Exit status 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack.table", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="of the gateway (%(default)s)")
    parser.add_argument("--only", default="", help="attacks whose names have this")
    parser.add_argument("file", type=Path, nargs="?", help="where the table goes; default: the output")
    asked = parser.parse_args()
    tried: list[AttackResult] = []
    with tempfile.TemporaryDirectory(prefix="tritonic-attack-") as folder, GatewayPool(Path(folder)) as gateways:
        for kind in ALL_CASES:
            if asked.only not in kind.name or (asked.workers > 1 and not kind.runs_on_two_workers):
                continue
            tried.append(run_attack(gateways, kind, asked.workers))
            sys.stderr.write(f"{kind.name}: {'; '.join(tried[-1].problems()) or 'well'}\n")
    written = markdown_table(tried)
    if asked.file:
        asked.file.write_text(written)
    else:
        sys.stdout.write(written)
    sys.exit(any(each.problems() for each in tried))


if __name__ == "__main__":
    main()
