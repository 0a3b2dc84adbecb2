"""`tritonic train` where the training code is missing, as in an installed wheel, and where it is found."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

from tritonic import train
from tritonic.cli import app


def fake_import(monkeypatch: pytest.MonkeyPatch, import_module: Callable[[str], ModuleType]) -> None:
    """Let `tritonic.train` find no package `training`, and import modules with `import_module`."""
    util = SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr(train, "importlib", SimpleNamespace(util=util, import_module=import_module))


def lacking(package: str) -> Callable[[str], ModuleType]:
    def import_module(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    return import_module


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, and restore `sys.path` afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_installed_wheel_names_the_place_of_the_training_code(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_import(monkeypatch, lacking("training"))
    done = CliRunner().invoke(app, ["train", "shapes"])
    assert done.exit_code == 1
    assert "not in the installed package" in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_the_current_folder_may_be_the_checkout(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "training" / "shapes").mkdir(parents=True)
    calls: list[list[str]] = []
    module = ModuleType("training.shapes.__main__")
    module.main = calls.append  # type: ignore[attr-defined]
    fake_import(monkeypatch, lambda name: module)
    train.train_model("shapes", ["--work", "x"])
    assert calls == [["train", "--work", "x"]]
    assert sys.path[0] == str(elsewhere)


def test_a_command_runs_the_training_of_its_model(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def import_module(name: str) -> ModuleType:
        assert name == "training.moving_shapes.__main__"
        module = ModuleType(name)
        module.main = calls.append  # type: ignore[attr-defined]
        return module

    fake_import(monkeypatch, import_module)
    assert CliRunner().invoke(app, ["train", "moving-shapes", "--work", "y", "--vae-steps", "3"]).exit_code == 0
    assert calls == [["train", "--work", "y", "--vae-steps", "3"]]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_import(monkeypatch, lacking("torch"))
    with pytest.raises(train.TrainingError, match="Training needs the package 'torch': pip install"):
        train.train_model("shapes", [])
