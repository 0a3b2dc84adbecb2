"""Recipes for the tiny pipelines."""

from pathlib import Path
from typing import Any

from builders import recipe


def image_recipe(source: Path, **values: Any) -> recipe.Recipe:
    return recipe.make(**{"family": "diffusion", "name": "tiny", "source": str(source)} | values)
