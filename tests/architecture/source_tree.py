"""The project's files, as git knows them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "builders", "backends", "tritonic")


def project_files() -> list[Path]:
    """Everything that is in git or could be added to it, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(path for name in listed.stdout.split("\0") if name and (ROOT / (path := Path(name))).is_file())


def package_modules() -> list[Path]:
    """The Python files of the packages."""
    return [path for path in project_files() if path.suffix == ".py" and path.parts[0] in PACKAGES]
