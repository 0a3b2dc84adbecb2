"""Measure all attacks and write the table: `python -m tests.attack.table [--workers N] [--only TEXT] [FILE]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.attack.kinds import ALL
from tests.attack.serving import Gateways
from tests.attack.trying import Tried, table, try_kind


def main() -> None:
    """Exit status 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack.table", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="of the gateway (%(default)s)")
    parser.add_argument("--only", default="", help="attacks whose names have this")
    parser.add_argument("file", type=Path, nargs="?", help="where the table goes; default: the output")
    asked = parser.parse_args()
    tried: list[Tried] = []
    with tempfile.TemporaryDirectory(prefix="tritonic-attack-") as folder, Gateways(Path(folder)) as gateways:
        for kind in ALL:
            if asked.only not in kind.name or (asked.workers > 1 and not kind.costly):
                continue
            tried.append(try_kind(gateways, kind, asked.workers))
            sys.stderr.write(f"{kind.name}: {'; '.join(tried[-1].wrong()) or 'well'}\n")
    written = table(tried)
    if asked.file:
        asked.file.write_text(written)
    else:
        sys.stdout.write(written)
    sys.exit(any(each.wrong() for each in tried))


if __name__ == "__main__":
    main()
