"""The environment of an embedded Triton: the packages that its models see, and the secrets that they do not."""

import os
import sys
from pathlib import Path

import pytest

from tritonic import wheel


def first_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str | None) -> str:
    if environment is None:
        monkeypatch.delenv(wheel.MODEL_ENVIRONMENT, raising=False)
    else:
        monkeypatch.setenv(wheel.MODEL_ENVIRONMENT, environment)
    installed = wheel.TritonWheel(tmp_path, tmp_path, tmp_path, tmp_path)
    return wheel.server_environment(installed, tmp_path)["PATH"].split(os.pathsep)[0]


@pytest.mark.parametrize("environment", [None, ""])
def test_models_see_the_packages_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str | None
) -> None:
    assert first_folder(monkeypatch, tmp_path, environment) == str(Path(sys.prefix) / "bin")


def test_models_see_the_packages_of_an_environment_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert first_folder(monkeypatch, tmp_path, str(tmp_path / "own")) == str(tmp_path / "own" / "bin")


def test_a_relative_environment_starts_where_the_command_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert first_folder(monkeypatch, tmp_path, "own") == str(tmp_path / "own" / "bin")


@pytest.mark.parametrize("secret", ["TRITONIC_TRITON_SECRET", "TRITONIC_WEBHOOK_SECRET"])
def test_models_do_not_inherit_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str) -> None:
    monkeypatch.setenv(secret, "s")
    installed = wheel.TritonWheel(tmp_path, tmp_path, tmp_path, tmp_path)
    assert secret not in wheel.server_environment(installed, tmp_path)
