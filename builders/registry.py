"""The list of builder families."""

from importlib import import_module

from builders.errors import RecipeError
from builders.family import Builder, Family

FAMILY_MODULES = ["builders.llm.family", "builders.embedding.family", "builders.diffusion.family"]
"""Modules that declare a `FAMILY`, in the order of `tritonic build --help`. A new family is a line here."""


def families() -> dict[str, Family]:
    """Return every family by its name."""
    declared: list[Family] = [import_module(module).FAMILY for module in FAMILY_MODULES]
    return {family.name: family for family in declared}


def find(name: str) -> Family:
    """Return the family of that name. Raises RecipeError."""
    known = families()
    if name not in known:
        raise RecipeError(f"There is no family {name!r}. Known: {', '.join(sorted(known))}.")
    return known[name]


def load_builder(name: str) -> Builder:
    """Import the builder of a family. Raises RecipeError, ModuleNotFoundError."""
    return find(name).load_builder()
