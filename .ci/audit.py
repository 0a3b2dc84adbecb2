"""Compare the pinned packages with known vulnerabilities: `make audit`.

pip-audit asks PyPI, and OSV where PyPI does not know. A mirror of PyPI mostly has packages and no advisories; pip-audit
then says that nothing was found. This says what was compared. Exit status: 0 where nothing is known against any, 1
where something is, 3 where no database answered.
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


def asked(database: str, constraints: Path, command: tuple[str, ...] = (sys.executable, "-m", "pip_audit")) -> Any:
    """What pip-audit writes about the packages; None, and its last words on standard error, where it fails."""
    arguments = ["-r", str(constraints), "--no-deps", "--disable-pip", "--progress-spinner=off", "-f", "json"]
    done = subprocess.run(
        [*command, "-s", database, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
        print(f"{database}: {words[0][:300]}", file=sys.stderr)
        return None


def judged(found: Any) -> tuple[int, str]:
    """The exit status and what to say of what pip-audit wrote."""
    packages = found["dependencies"] if found else []
    compared = [each for each in packages if "vulns" in each]
    left = [each["name"] for each in packages if "vulns" not in each]
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
    if left:
        lines.append(f"The database does not know {len(left)}: {', '.join(left)}.")
    return int(len(lines) > 1 + bool(left)), "\n".join(lines)


def main() -> int:
    """The exit status."""
    status, said = NO_DATABASE, ""
    for database in DATABASES:
        status, said = judged(asked(database, CONSTRAINTS))
        if status != NO_DATABASE:
            break
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
