"""What is loaded from elsewhere holds no code that runs: no pickles, no code of checkpoints, no commit unsaid."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.architecture.source_tree import ROOT, package_modules

HUB = {"snapshot_download", "hf_hub_download", "model_info"}
"""What asks the Hugging Face hub."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file, by the last part of what is called."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id, node


def named(call: ast.Call) -> dict[str, str]:
    """Its named arguments as source; those of `**NAME` by that name."""
    return {keyword.arg or ast.unparse(keyword.value): ast.unparse(keyword.value) for keyword in call.keywords}


@pytest.mark.parametrize("path", package_modules(), ids=str)
def test_no_loader_runs_code_of_a_file(path: Path) -> None:
    for name, call in calls(path):
        where, given = f"{path}:{call.lineno}", named(call)
        if name == "from_pretrained":
            safe = "FROM_PRETRAINED_OPTIONS" in given or given.get("trust_remote_code") == "False"
            assert safe, f"{where}: say FROM_PRETRAINED_OPTIONS (builders/checkpoint.py), or trust_remote_code=False"
        if name == "load" and ast.unparse(call.func) == "torch.load":
            assert given.get("weights_only") == "True", f"{where}: say weights_only=True"
        if name in HUB:
            assert "revision" in given, f"{where}: a whole build is of one commit; say which"
        assert given.get("allow_pickle", "False") == "False", where
        assert given.get("trust_remote_code", "False") == "False", where
        assert given.get("shell", "False") == "False", where


@pytest.mark.parametrize("path", package_modules(), ids=str)
def test_nothing_unpickles(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for module in imported:
        assert module.split(".")[0] not in {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


OLDEST_PYTHON = "3.11.2"
"""What Debian 12 has."""


def test_pinned_versions_can_be_installed_on_the_oldest_python() -> None:
    """A resolver on a newer Python pins releases that the oldest one is refused; pip then installs nothing at all."""
    pinned = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert pinned
    for name in pinned:
        with suppress(PackageNotFoundError):  # of an extra that is not installed here
            needed = str(metadata(name).json.get("requires_python", ""))
            assert OLDEST_PYTHON in SpecifierSet(needed), f"{name} needs Python {needed}: pin an older release"
