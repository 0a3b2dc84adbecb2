"""The models that `up` builds on a machine that has none: one that chats, one that embeds, one that draws."""

import sys
from dataclasses import dataclass
from pathlib import Path

from builders import manifest, recipe
from builders.build import resolve_source
from builders.manifest import OutdatedBuild
from builders.recipe import Recipe


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """A model that comes with a Python package: its folder in the repository, and the command that builds it."""

    name: str
    command: list[str]
    recipe: Recipe | None = None

    def is_missing(self, repository: Path) -> bool:
        """Tell whether the repository lacks the model, or one of those that it calls."""
        names = [self.name, *manifest.part_names(repository / self.name)]
        return not all((repository / name / "config.pbtxt").is_file() for name in names)

    def why_outdated(self, repository: Path) -> OutdatedBuild | None:
        """Tell why the model in the repository would be built otherwise today, without fetching any weights."""
        if self.recipe is None:
            return None
        return manifest.find_outdated(repository / self.name, self.recipe, resolve_source(self.recipe).digest())


def chat_model_name() -> str:
    """The folder of the one that chats."""
    return recipe.load(recipe.DEFAULT_LLM_RECIPE).name


def chat_build_command(repository: Path) -> list[str]:
    """The command that builds the one that chats into the repository."""
    return _command("chat", repository)


def default_models(repository: Path, *, embedding: bool = True, image: bool = True) -> list[DefaultModel]:
    """What to build into a repository that lacks it; the one that chats comes first."""
    wanted = [("chat", recipe.DEFAULT_LLM_RECIPE)]
    if embedding:
        wanted.append(("embedding", recipe.DEFAULT_EMBEDDING_RECIPE))
    if image:
        wanted.append(("image", recipe.DEFAULT_IMAGE_RECIPE))
    known = [(kind, recipe.load(each)) for kind, each in wanted]
    return [DefaultModel(each.name, _command(kind, repository), each) for kind, each in known]


def _command(kind: str, repository: Path) -> list[str]:
    return [sys.executable, "-m", "tritonic", "build", kind, "--repository", str(repository)]
