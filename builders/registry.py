"""All builder families. A new family is a folder of this package and a line in `_NAMES`."""

from importlib import import_module

from builders.errors import RecipeError
from builders.family import Builder, Family

_NAMES = (
    "llm",
    "embedding",
    "transcription",
    "diffusion",
    "video",
    "face_swap",
    "upscaling",
    "speech",
)
"""Folders of this package, each with a module `family` that declares a `FAMILY`, in the order of the command's help."""


def families() -> dict[str, Family]:
    """Return every family by its name."""
    declared: list[Family] = [import_module(f"{__package__}.{name}.family").FAMILY for name in _NAMES]
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
