"""Bring constraints.txt up to date: `make constraints`, or `make constraints ARGS=--dry-run` to see what would change.

pip resolves the project with all extras of `EXTRAS` for the oldest supported Python, and installs nothing. A pin with a comment
in its line is deliberate: it stays, and pip resolves the others with it. Exit status: 0, or that of pip if it finds no
solution.
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
# The project itself, and the packages that every new environment has.
NOT_PINNED = {"tritonic", "pip", "setuptools", "wheel"}
EXTRAS = "audio,video,embedded,build,bench,tracing,dev"
# Extras that are not pinned, because pip cannot resolve them together with the others.
UNPINNED_EXTRAS = {
    "gpu": "onnxruntime-gpu has the files of onnxruntime; one environment holds one of them",
    "vllm": "it brings its own releases of torch, transformers and CUDA, and is installed into an environment of its own",
    "quantization": "ModelOpt needs transformers 4 for TensorRT-LLM's checkpoints, and the exporters need 5",
    "tensorrt-rtx": "only tests import it, from a folder of its own, and not every registry has it",
}
# Debian 12's. pip then chooses no release that needs a newer Python.
OLDEST_PYTHON = "3.11.2"
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s#]+)(?P<comment>\s+#.*)?")


@dataclass(frozen=True)
class MergeResult:
    """constraints.txt with new versions, and its changes as text."""

    text: str
    changes: list[str]
    unneeded: list[str]
    """Pins that the resolver did not ask for; they stay, because another Python may need them."""


def merge(text: str, resolved: dict[str, str]) -> MergeResult:
    """Merge resolved versions, by package name, into the text of constraints.txt.

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
    return MergeResult("\n".join(lines) + "\n", changes, unneeded)


def deliberate_pins(text: str) -> str:
    """Return only the pins with a comment, as a constraints file."""
    pins = (_PIN.fullmatch(line) for line in text.splitlines())
    return "".join(f"{pin['name']}=={pin['version']}\n" for pin in pins if pin and pin["comment"])


def resolved_versions(report: Any) -> dict[str, str]:
    """Return name and version of each package of pip's report, without those of `NOT_PINNED`."""
    packages = (each["metadata"] for each in report["install"])
    return {each["name"]: each["version"] for each in packages if _key(each["name"]) not in NOT_PINNED}


def resolve(text: str) -> dict[str, str]:
    """Return the versions that pip resolves. Raises CalledProcessError; pip prints the reason on standard error."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        pins.write_text(deliberate_pins(text))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", "--report", str(report), "--constraint", str(pins)]
        command += ["--python-version", OLDEST_PYTHON, "--only-binary", ":all:", "--target", folder]
        subprocess.run([*command, f".[{EXTRAS}]"], cwd=ROOT, check=True)
        return resolved_versions(json.loads(report.read_text()))


def _key(name: str) -> str:
    """Return the normalized name of a package or a pin, for comparison."""
    return re.sub(r"[-_.]+", "-", name.partition("==")[0]).lower()


def main(arguments: list[str] | None = None) -> int:
    """Update constraints.txt; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print the changes without writing them")
    options = parser.parse_args(arguments)
    text = CONSTRAINTS.read_text()
    try:
        result = merge(text, resolve(text))
    except subprocess.CalledProcessError as error:
        return error.returncode
    print("\n".join(result.changes) or "Everything is up to date.")
    if result.unneeded:
        print(f"Not needed under this Python, and left in place: {', '.join(result.unneeded)}")
    if not options.dry_run and result.changes:
        CONSTRAINTS.write_text(result.text)
        print("constraints.txt is changed. Run `make install check test` to see that the versions work together.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
