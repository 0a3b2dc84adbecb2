"""The model that `up` builds on a machine that has none."""

import sys
from pathlib import Path

from builders import recipe


def name() -> str:
    """Its folder in the repository."""
    return recipe.load(recipe.DEFAULT_RECIPE).name


def build_command(repository: Path) -> list[str]:
    """The command that builds it into the repository, from the weights that come with a Python package."""
    return [sys.executable, "-m", "tritonic", "build", "chat", "--repository", str(repository)]
