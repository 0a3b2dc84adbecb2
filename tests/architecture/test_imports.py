"""The import rules of pyproject.toml hold."""

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.architecture.source_tree import PACKAGES, ROOT


def test_every_import_contract_holds() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_import_contracts_cover_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings["tool"]["importlinter"]["root_packages"]) == {*PACKAGES, "training"}
    assert set(settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)
