"""Staging, locking, atomic replacement, and cleaning up after builds that died."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builders import repository
from builders.errors import RepositoryBusy


def fill(stage: repository.StagingArea, text: str) -> None:
    (stage.model_folder / "1").mkdir()
    (stage.model_folder / "1" / "weights").write_text(text)


def build(into: Path, name: str, text: str) -> None:
    with repository.staging_area(into, name) as stage:
        fill(stage, text)
        stage.install()


def test_install_and_replace(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    build(into, "a", "one")
    build(into, "a", "two")
    assert (into / "a" / "1" / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.rglob("*")] == ["repository", "a", "1", "weights"]


def test_replace_on_a_filesystem_without_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_repository_stays_empty_while_a_build_runs(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    with repository.staging_area(into, "a") as stage:
        fill(stage, "one")
        assert list(into.iterdir()) == [], "Triton takes every folder of a repository for a model"
        assert stage.root.stat().st_dev == into.stat().st_dev


def test_concurrent_builds_of_one_model_are_refused(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    with repository.staging_area(into, "a") as stage:
        fill(stage, "one")
        with pytest.raises(RepositoryBusy, match="Another build of a is running"), repository.staging_area(into, "a"):
            pass
        build(into, "b", "other")
        stage.install()
    assert (into / "a" / "1" / "weights").read_text() == "one"
    assert (into / "b" / "1" / "weights").read_text() == "other"


def build_together(into: Path, text: str, parts: tuple[str, ...] = ("a-one", "a-two")) -> None:
    with repository.staging_area(into, "a") as stage:
        fill(stage, text)
        for part in parts:
            folder = repository.parts_folder(stage.model_folder) / part / "1"
            folder.mkdir(parents=True)
            (folder / "weights").write_text(text)
        stage.install()


def held(into: Path) -> dict[str, str]:
    return {path.name: (path / "1" / "weights").read_text() for path in sorted(into.iterdir())}


def test_a_model_and_its_parts_are_installed_and_replaced_together(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    build_together(into, "one")
    build_together(into, "two")
    assert held(into) == {"a": "two", "a-one": "two", "a-two": "two"}
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("before", [None, "one"])
@pytest.mark.parametrize("failing", ["a-one", "a-two", "a"])
def test_a_failed_move_rolls_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, before: str | None, swaps: bool
) -> None:
    into = tmp_path / "repository"
    if before:
        build_together(into, before)
    if not swaps:
        monkeypatch.setattr(repository, "_exchange", lambda one, other: False)
    exchange, rename = repository._exchange, Path.rename
    failed: list[Path] = []

    def fail(target: Path) -> None:
        if target == into.resolve() / failing and not failed:
            failed.append(target)
            raise KeyboardInterrupt

    def failing_exchange(one: Path, other: Path) -> bool:
        fail(other) if swaps else None
        return exchange(one, other)

    def failing_rename(self: Path, target: Path) -> Path:
        fail(target)
        return rename(self, target)

    monkeypatch.setattr(repository, "_exchange", failing_exchange)
    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(KeyboardInterrupt):
        build_together(into, "two")
    assert failed
    if before:
        assert held(into) == {"a": before, "a-one": before, "a-two": before}
    else:
        assert not into.exists()


def test_stale_parts_are_removed(tmp_path: Path) -> None:
    into = tmp_path / "repository"
    build_together(into, "one")
    with repository.staging_area(into, "a") as stage:
        fill(stage, "two")
        stage.install(stale=["a-one", "a-two"])
    assert held(into) == {"a": "two"}


DYING = """
import os, signal, sys
from pathlib import Path
from builders import repository

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

with repository.staging_area(Path(sys.argv[1]), "a") as stage:
    (stage.model_folder / "1").mkdir()
    if sys.argv[2] == "early":
        die()
    (stage.model_folder / "1" / "weights").write_text("two")
    for part in ("a-one", "a-two"):
        (repository.parts_folder(stage.model_folder) / part / "1").mkdir(parents=True)
    rename, exchange = Path.rename, repository._exchange
    if sys.argv[2] == "between":  # the old one is away, the new one is not there yet
        repository._exchange = lambda one, other: False
        Path.rename = lambda self, target: die() if self == stage.model_folder else rename(self, target)
    else:
        repository._exchange = lambda one, other: exchange(one, other) and die()
    stage.install()
"""


@pytest.mark.parametrize("moment", ["early", "between", "late"])
@pytest.mark.parametrize("following", ["a", "b"])
def test_the_next_build_cleans_up_after_a_killed_one(tmp_path: Path, moment: str, following: str) -> None:
    into = tmp_path / "repository"
    build(into, "a", "one")
    died = subprocess.run([sys.executable, "-c", DYING, str(into), moment], cwd=Path.cwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / ".repository.tritonic" / "a").exists()
    with repository.staging_area(into, following):
        assert held(into) == {"a": "one"}
    assert not (tmp_path / ".repository.tritonic").exists()


def test_a_read_only_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", denied)
    with (
        pytest.raises(RepositoryBusy, match="cannot be written"),
        repository.staging_area(tmp_path / "repository", "a"),
    ):
        pass
