"""Fixtures: a tiny checkpoint, and the model that the builders make of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from builders import recipe
from builders.build import BuildResult, build
from tests.unit.builders.shared_fixture import make_once
from tests.unit.builders.tiny_llama import make_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face's layout with a Llama of random weights and a byte-level tokenizer."""
    return make_once(tmp_path_factory, "tiny-llama", lambda folder: make_checkpoint(folder / "tiny-llama", seed=1))


@pytest.fixture(scope="session")
def tiny_recipe(tiny: Path) -> Callable[..., recipe.Recipe]:
    """Make a recipe for the tiny Llama; arguments are values of the recipe."""

    def make(**values: object) -> recipe.Recipe:
        return recipe.make(**{"name": "tiny", "source": str(tiny), "precision": "fp32"} | values)

    return make


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Callable[..., recipe.Recipe]) -> BuildResult:
    """The tiny Llama, built in fp32 by the real exporter. Tests look at it and leave it as it is."""
    return make_once(tmp_path_factory, "built-llama", lambda folder: build(tiny_recipe(), folder / "repository"))
