"""The family `toy`: models that answer with one fixed text."""

from builders.family import REVISION, Builder, Family, Option
from builders.recipe import Recipe


class ToyRecipe(Recipe):
    """A recipe of a toy."""

    greeting: str = "hello"
    loud: bool = False


def _load_builder() -> Builder:
    from builders.toy.builder import ToyBuilder

    return ToyBuilder()


FAMILY = Family(
    name="toy",
    command="toy",
    help="Build a toy that answers with one text.",
    source_help="Local folder with a config.json.",
    options=(
        Option("greeting", "The text of the answer."),
        Option("max_rows", "Answers that are given side by side.", int),
        Option("loud", "Answer in capitals.", bool),
        REVISION,
    ),
    load_builder=_load_builder,
    summary=lambda figures: f"It answers with {figures['characters']} characters.",
    recipe=ToyRecipe,
)
