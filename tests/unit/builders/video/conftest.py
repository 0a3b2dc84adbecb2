"""Fixtures: tiny Wan pipelines of the published classes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.tiny_wan import make_wan_pipeline
from tests.unit.builders.shared_fixture import make_once


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a pipeline of one of `tiny_wan.KINDS`, made once."""

    def pipeline_folder(kind: str) -> Path:
        return make_once(tmp_path_factory, f"wan-{kind}", lambda folder: make_wan_pipeline(folder / kind, kind))

    return pipeline_folder


@pytest.fixture
def copy(wan: Callable[[str], Path], tmp_path: Path) -> Path:
    """A text-to-video pipeline to change."""
    return Path(shutil.copytree(wan("t2v"), tmp_path / "copy"))
