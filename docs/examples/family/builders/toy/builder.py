"""Build toys."""

from pathlib import Path
from typing import Any

from builders import config_pbtxt
from builders.errors import VerificationFailed
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.toy.family import ToyRecipe


class ToyBuilder(Builder):
    """Builds the models of the family `toy`."""

    def check(self, recipe: Recipe, source: Source) -> int:
        """Read the configuration of the source, and return the bytes of disk that a build needs."""
        source.config()
        return 1_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write the answer into a file, and return its length."""
        assert isinstance(recipe, ToyRecipe)
        progress.begin("fetch", recipe.source)
        source.fetch(scratch, progress)
        progress.begin("export", recipe.greeting)
        text = recipe.greeting.upper() if recipe.loud else recipe.greeting
        (folder / "1").mkdir()
        (folder / "1" / "answer.txt").write_text(text)
        progress.begin("verify", "against the recipe")
        if not text:
            raise VerificationFailed("The toy answers nothing.")
        parameters = {"max_rows": recipe.max_rows}
        config = config_pbtxt.render(recipe.name, "toy", (), (), parameters, decoupled=False)
        (folder / "config.pbtxt").write_text(config)
        return {"characters": len(text)}
