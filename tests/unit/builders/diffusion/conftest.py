"""Fixtures: tiny pipelines of the published classes, and the models that the builder makes of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_image_recipe import image_recipe

from builders.build import BuildResult, build
from tests.fakes.pipelines import make_pipeline


@pytest.fixture(scope="session")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a pipeline of one of `KINDS`, made once."""
    folders: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = make_pipeline(tmp_path_factory.mktemp("pipelines") / kind, kind)
        return folders[kind]

    return of


@pytest.fixture
def copy(pipes: Callable[[str], Path], tmp_path: Path) -> Path:
    """A Stable Diffusion pipeline to change."""
    return Path(shutil.copytree(pipes("sd"), tmp_path / "copy"))


@pytest.fixture(scope="session")
def built(pipes: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The Stable Diffusion pipeline, built by the real exporter. Tests look at it and leave it as it is."""
    return build(image_recipe(pipes("sd")), tmp_path_factory.mktemp("built") / "repository")
