"""A builder family: how its command reads, which class builds its models, and what its recipes add.

A family is a folder with two modules. `family.py` declares a `Family` named `FAMILY`; `tritonic build --help` imports
it, so it must import neither PyTorch nor anything else of the extra `build`. `builder.py` holds the `Builder` and may
import what it likes. `builders.registry` lists the families.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import sources
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source


class Builder(ABC):
    """Builds the models of one family."""

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the source that a recipe names. Raises RecipeError, SourceUnavailable."""
        return sources.resolve(source, revision)

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Return the names of the models that `build` installs next to the one that is named after the recipe."""
        return ()

    @abstractmethod
    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs. Raises BuildError, before any heavy work, if it cannot be done.

        Weights are not fetched yet: `source` answers from its configuration files alone.
        """

    @abstractmethod
    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Fetch, export and verify a model; return the figures of the verification. Raises BuildError.

        `folder` becomes the model: `config.pbtxt` and `1/`. Sibling models go to
        `builders.repository.parts_folder(folder)`. `scratch` is deleted when the build ends.
        """


@dataclass(frozen=True, slots=True)
class Option:
    """An option of `tritonic build KIND` that sets one field of the recipe."""

    field: str
    """Field of the family's recipe class. The option is `--` and this name, with dashes for underscores."""
    help: str
    value_type: type[str] | type[int] | type[bool] = str
    """`bool` makes a flag that takes no value and sets the field to true."""
    flag: str | None = None
    """Name of the option on the command line, if it is not made of the field's: `--tp`."""


REVISION = Option("revision", "Branch, tag or commit of a Hugging Face id.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model that `tritonic build` builds."""

    name: str
    """Value of `family` in a recipe."""
    command: str
    """`tritonic build <command>`."""
    help: str
    """First paragraph of the command's help."""
    source_help: str
    """Help of `--source`."""
    options: tuple[Option, ...]
    """The options besides source, name, served name, recipe, repository and force, in the order of the help."""
    load_builder: Callable[[], Builder]
    """Imports the builder. Raises ModuleNotFoundError where the extra `build` is not installed."""
    summary: Callable[[Mapping[str, Any]], str]
    """Returns a sentence about the figures of `Builder.build`, for the last line of the command's output."""
    default_recipe: str | None = None
    """Name or `.toml` file of the recipe that is built without `--recipe` and `--source`; None: one is required."""
    recipe_help: str = "A recipe by name or a .toml file; other options override it."
    recipe: type[Recipe] = Recipe
    """Subclass with the family's own fields and defaults."""
    own_fields: frozenset[str] = frozenset()
    """Fields of the shared `Recipe` that only this family reads. Fingerprints of other families leave them out."""
    format_version: int = 0
    """Version of its builds. Increase it when the same recipe installs something else: models are then rebuilt."""
