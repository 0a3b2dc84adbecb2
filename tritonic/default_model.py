"""The models that `up` builds on a machine that has none: one that chats, one that embeds."""

import sys
from dataclasses import dataclass
from pathlib import Path

from builders import manifest, recipe, sources
from builders.manifest import Outdated
from builders.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Default:
    """A model that comes with a Python package: its folder in the repository, and the command that builds it."""

    name: str
    command: list[str]
    recipe: Recipe | None = None

    def outdated(self, repository: Path) -> Outdated | None:
        """Tell why the model in the repository would be built otherwise today, without fetching any weights."""
        if self.recipe is None:
            return None
        digest = sources.find(self.recipe.source, self.recipe.revision).digest()
        return manifest.outdated(repository / self.name, self.recipe, digest)


def name() -> str:
    """The folder of the one that chats."""
    return recipe.load(recipe.DEFAULT_RECIPE).name


def build_command(repository: Path) -> list[str]:
    """The command that builds the one that chats into the repository."""
    return _command("chat", repository)


def defaults(repository: Path, *, embedding: bool = True) -> list[Default]:
    """What to build into a repository that lacks it; the one that chats comes first."""
    chats, embeds = recipe.load(recipe.DEFAULT_RECIPE), recipe.load(recipe.DEFAULT_EMBEDDING)
    chat = Default(chats.name, build_command(repository), chats)
    if not embedding:
        return [chat]
    return [chat, Default(embeds.name, _command("embedding", repository), embeds)]


def _command(kind: str, repository: Path) -> list[str]:
    return [sys.executable, "-m", "tritonic", "build", kind, "--repository", str(repository)]
