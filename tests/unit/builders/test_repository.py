"""Staging, locking, swapping, and clearing up after builds that died."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builders import repository
from builders.errors import RepositoryBusy


def fill(stage: repository.Stage, text: str) -> None:
    (stage.model / "1").mkdir()
    (stage.model / "1" / "weights").write_text(text)


def build(into: Path, name: str, text: str) -> None:
    with repository.stage(into, name) as stage:
        fill(stage, text)
        stage.install()


def test_install_and_replace(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    build(into, "a", "one")
    build(into, "a", "two")
    assert (into / "a" / "1" / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.rglob("*")] == ["repository", "a", "1", "weights"]


def test_replace_where_the_filesystem_cannot_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_exchange", lambda one, other: False)
    test_install_and_replace(tmp_path)


def test_a_failed_rename_puts_the_old_model_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_exchange", lambda one, other: False)
    into = tmp_path / "repository"
    build(into, "a", "one")
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(KeyboardInterrupt):
        build(into, "a", "two")
    assert (into / "a" / "1" / "weights").read_text() == "one"


def test_nothing_in_the_repository_while_a_build_runs(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    with repository.stage(into, "a") as stage:
        fill(stage, "one")
        assert list(into.iterdir()) == [], "Triton takes every folder of a repository for a model"
        assert stage.root.stat().st_dev == into.stat().st_dev


def test_two_builds_of_one_model(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    with repository.stage(into, "a") as stage:
        fill(stage, "one")
        with pytest.raises(RepositoryBusy, match="Another build of a is running"), repository.stage(into, "a"):
            pass
        build(into, "b", "other")
        stage.install()
    assert (into / "a" / "1" / "weights").read_text() == "one"
    assert (into / "b" / "1" / "weights").read_text() == "other"


DYING = """
import os, signal, sys
from pathlib import Path
from builders import repository
with repository.stage(Path(sys.argv[1]), "a") as stage:
    (stage.model / "1").mkdir()
    if sys.argv[2] == "between":
        stage.target.rename(stage._previous)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["early", "between"])
@pytest.mark.parametrize("following", ["a", "b"])
def test_the_next_build_clears_up_after_one_that_was_killed(tmp_path: Path, moment: str, following: str) -> None:
    into = tmp_path / "repository"
    build(into, "a", "one")
    died = subprocess.run([sys.executable, "-c", DYING, str(into), moment], cwd=Path.cwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / ".repository.tritonic" / "a").exists()
    with repository.stage(into, following):
        assert (into / "a" / "1" / "weights").read_text() == "one"
    assert not (tmp_path / ".repository.tritonic").exists()


def test_a_repository_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(repository.os, "open", denied)
    with pytest.raises(RepositoryBusy, match="cannot be written"), repository.stage(tmp_path / "repository", "a"):
        pass
