"""The models that `up` builds on a machine that has none: one that chats, one that embeds."""

import sys
from dataclasses import dataclass
from pathlib import Path

from builders import recipe


@dataclass(frozen=True, slots=True)
class Default:
    """A model that comes with a Python package: its folder in the repository, and the command that builds it."""

    name: str
    command: list[str]


def name() -> str:
    """The folder of the one that chats."""
    return recipe.load(recipe.DEFAULT_RECIPE).name


def build_command(repository: Path) -> list[str]:
    """The command that builds the one that chats into the repository."""
    return _command("chat", repository)


def defaults(repository: Path, *, embedding: bool = True) -> list[Default]:
    """What to build into a repository that lacks it; the one that chats comes first."""
    chat = Default(name(), build_command(repository))
    if not embedding:
        return [chat]
    return [chat, Default(recipe.load(recipe.DEFAULT_EMBEDDING).name, _command("embedding", repository))]


def _command(kind: str, repository: Path) -> list[str]:
    return [sys.executable, "-m", "tritonic", "build", kind, "--repository", str(repository)]
