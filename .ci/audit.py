"""Compare the pinned packages with known vulnerabilities: `make audit`.

pip-audit queries PyPI, then OSV if PyPI has no advisories. Most mirrors of PyPI have packages without advisories, and
pip-audit then reports no findings. This script also reports how many packages were compared. Exit status: 0 without
vulnerabilities, 1 with some, 3 if no database answered.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
DATABASES = ("pypi", "osv")
NO_DATABASE = 3
_SECONDS = 600


def run_audit(database: str, constraints: Path, command: tuple[str, ...] = (sys.executable, "-m", "pip_audit")) -> Any:
    """Return the report of pip-audit; if it fails, print the last line of its output and return None."""
    arguments = ["-r", str(constraints), "--no-deps", "--disable-pip", "--progress-spinner=off", "-f", "json"]
    done = subprocess.run(
        [*command, "-s", database, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
        print(f"{database}: {lines[0][:300]}", file=sys.stderr)
        return None


def summarize(report: Any) -> tuple[int, str]:
    """Return the exit status and the summary of a report."""
    packages = report["dependencies"] if report else []
    compared = [each for each in packages if "vulns" in each]
    unknown = [each["name"] for each in packages if "vulns" not in each]
    if not compared:
        return NO_DATABASE, (
            "No advisory database could be reached: not one of the pinned packages was compared with any. "
            "Run this where https://pypi.org/pypi/NAME/VERSION/json or https://api.osv.dev answers."
        )
    lines = [
        f"{each['name']} {each['version']}: {vuln['id']}"
        + (f" ({', '.join(vuln['aliases'])})" if vuln.get("aliases") else "")
        + (f", mended in {', '.join(vuln['fix_versions'])}" if vuln.get("fix_versions") else ", not mended yet")
        for each in compared
        for vuln in each["vulns"]
    ]
    lines.append(f"{len(compared)} pinned packages were compared, {len(lines)} vulnerabilities are known.")
    if unknown:
        lines.append(f"The database does not know {len(unknown)}: {', '.join(unknown)}.")
    return int(len(lines) > 1 + bool(unknown)), "\n".join(lines)


def main() -> int:
    """Audit the pins; return the exit status."""
    status, summary = NO_DATABASE, ""
    for database in DATABASES:
        status, summary = summarize(run_audit(database, CONSTRAINTS))
        if status != NO_DATABASE:
            break
    print(summary)
    return status


if __name__ == "__main__":
    sys.exit(main())
