"""Fixtures: a tiny checkpoint, and the model that the builders make of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_llama import make_checkpoint

from builders import recipe
from builders.build import BuildResult, build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face's layout with a Llama of random weights and a byte-level tokenizer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-llama", seed=1)


@pytest.fixture(scope="session")
def tiny_recipe(tiny: Path) -> Callable[..., recipe.Recipe]:
    """Make a recipe for the tiny Llama; arguments are values of the recipe."""

    def make(**values: object) -> recipe.Recipe:
        return recipe.make(**{"name": "tiny", "source": str(tiny), "precision": "fp32"} | values)

    return make


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Callable[..., recipe.Recipe]) -> BuildResult:
    """The tiny Llama, built in fp32 by the real exporter. Tests look at it and leave it as it is."""
    return build(tiny_recipe(), tmp_path_factory.mktemp("built") / "repository")
