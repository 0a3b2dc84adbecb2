"""Fixtures: tiny pipelines of the published classes, and the models that the builder makes of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.build import BuildResult, build
from tests.fakes.pipelines import make_pipeline
from tests.unit.builders.diffusion.tiny_image_recipe import image_recipe
from tests.unit.builders.shared_fixture import make_once


@pytest.fixture(scope="session")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a pipeline of one of `KINDS`, made once."""

    def pipeline_folder(kind: str) -> Path:
        return make_once(tmp_path_factory, f"pipeline-{kind}", lambda folder: make_pipeline(folder / kind, kind))

    return pipeline_folder


@pytest.fixture
def copy(pipes: Callable[[str], Path], tmp_path: Path) -> Path:
    """A Stable Diffusion pipeline to change."""
    return Path(shutil.copytree(pipes("sd"), tmp_path / "copy"))


@pytest.fixture(scope="session")
def built(pipes: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The Stable Diffusion pipeline, built by the real exporter. Tests look at it and leave it as it is."""
    recipe = image_recipe(pipes("sd"))
    return make_once(tmp_path_factory, "built-pipeline", lambda folder: build(recipe, folder / "repository"))
