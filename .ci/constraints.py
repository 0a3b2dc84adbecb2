"""Bring constraints.txt up to date: `make constraints`, or `make constraints ARGS=--dry-run` to see what would change.

pip resolves the project with all its extras afresh, in no environment and for the oldest Python that the project takes,
and nothing is installed. A pin with a comment in its line is deliberate: it stays, and the others are resolved beside it.
Exit status: 0, or that of pip where it finds no solution.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
# The project itself, and what an environment has before anything is installed into it.
NOT_PINNED = {"tritonic", "pip", "setuptools", "wheel"}
EXTRAS = "embedded,build,tracing,bench,dev"
# What Debian 12 has. pip offers it no release that needs a newer one.
OLDEST_PYTHON = "3.11.2"
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s#]+)(?P<comment>\s+#.*)?")


@dataclass(frozen=True)
class Merged:
    """constraints.txt with other versions, and in words what differs."""

    text: str
    changes: list[str]
    unneeded: list[str]
    """Pins that the resolver did not ask for; they stay, because another Python may need them."""


def merged(text: str, resolved: dict[str, str]) -> Merged:
    """Put resolved versions by their packages' names into the text of constraints.txt.

    Comments, the order and the spelling of names stay. Raises ValueError for a line that is neither a pin nor a comment.
    """
    wanted = {_key(name): (name, version.partition("+")[0]) for name, version in resolved.items()}
    lines: list[str] = []
    changes: list[str] = []
    unneeded: list[str] = []
    for line in text.splitlines():
        pin = _PIN.fullmatch(line)
        if pin is None:
            if line.strip() and not line.startswith("#"):
                raise ValueError(f"Neither a pin nor a comment: {line}")
            lines.append(line)
            continue
        name = pin["name"]
        _, version = wanted.pop(_key(name), (name, None))
        if version is None:
            unneeded.append(name)
        elif version != pin["version"] and not pin["comment"]:
            changes.append(f"{name} {pin['version']} -> {version}")
            line = f"{name}=={version}"
        lines.append(line)
    for name, version in sorted(wanted.values(), key=lambda pair: _key(pair[0])):
        changes.append(f"{name} {version} is new")
        after = [at for at, line in enumerate(lines) if not _PIN.fullmatch(line) or _key(line) < _key(name)]
        lines.insert(after[-1] + 1 if after else 0, f"{name}=={version}")
    return Merged("\n".join(lines) + "\n", changes, unneeded)


def kept(text: str) -> str:
    """The deliberate pins alone, for pip."""
    pins = (_PIN.fullmatch(line) for line in text.splitlines())
    return "".join(f"{pin['name']}=={pin['version']}\n" for pin in pins if pin and pin["comment"])


def versions(report: Any) -> dict[str, str]:
    """The packages of pip's report that are pinned."""
    packages = (each["metadata"] for each in report["install"])
    return {each["name"]: each["version"] for each in packages if _key(each["name"]) not in NOT_PINNED}


def resolve(text: str) -> dict[str, str]:
    """Ask pip. Raises CalledProcessError; pip says on standard error why."""
    with tempfile.TemporaryDirectory() as folder:
        held, report = Path(folder) / "held.txt", Path(folder) / "report.json"
        held.write_text(kept(text))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", "--report", str(report), "--constraint", str(held)]
        command += ["--python-version", OLDEST_PYTHON, "--only-binary", ":all:", "--target", folder]
        subprocess.run([*command, f".[{EXTRAS}]"], cwd=ROOT, check=True)
        return versions(json.loads(report.read_text()))


def _key(name: str) -> str:
    """As packages' names are compared; of a pin, that of its name."""
    return re.sub(r"[-_.]+", "-", name.partition("==")[0]).lower()


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    options = parser.parse_args(arguments)
    text = CONSTRAINTS.read_text()
    try:
        result = merged(text, resolve(text))
    except subprocess.CalledProcessError as error:
        return error.returncode
    print("\n".join(result.changes) or "Everything is up to date.")
    if result.unneeded:
        print(f"Asked for by nothing under this Python, and kept: {', '.join(result.unneeded)}")
    if not options.dry_run and result.changes:
        CONSTRAINTS.write_text(result.text)
        print("constraints.txt is changed. `make install check test` says whether all of it works together.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
