"""The default models that `up` builds: one each for chat, embeddings, images, videos, transcription and speech."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from builders import manifest, recipe
from builders.build import resolve_source
from builders.manifest import OutdatedBuild
from builders.recipe import Recipe

_CHAT = ("chat", recipe.DEFAULT_LLM_RECIPE)
_OTHERS = (
    ("embedding", recipe.DEFAULT_EMBEDDING_RECIPE),
    ("image", recipe.DEFAULT_IMAGE_RECIPE),
    ("video", recipe.DEFAULT_VIDEO_RECIPE),
    ("transcription", recipe.DEFAULT_TRANSCRIPTION_RECIPE),
    ("speech", recipe.DEFAULT_SPEECH_RECIPE),
)
"""The kinds of models, by their names in `tritonic build`, and the recipe of the default model of each."""


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """A model whose weights come in a Python package: its folder in the repository, its build command and recipe."""

    name: str
    command: list[str]
    recipe: Recipe | None = None

    def is_missing(self, repository: Path) -> bool:
        """Return whether the repository lacks the model or one of its parts."""
        names = [self.name, *manifest.part_names(repository / self.name)]
        return not all((repository / name / "config.pbtxt").is_file() for name in names)

    def why_outdated(self, repository: Path) -> OutdatedBuild | None:
        """Return why today's recipe would build the model differently; None when it is current. Fetches no weights."""
        if self.recipe is None:
            return None
        return manifest.find_outdated(repository / self.name, self.recipe, resolve_source(self.recipe).digest())


def chat_model_name() -> str:
    """Return the folder name of the default chat model."""
    return recipe.load(recipe.DEFAULT_LLM_RECIPE).name


def chat_build_command(repository: Path) -> list[str]:
    """Return the command that builds the default chat model into the repository."""
    return _command("chat", repository)


def default_models(repository: Path, *, left_out: Collection[str] = ()) -> list[DefaultModel]:
    """Return the default models, the chat model first. `left_out` are kinds of models to leave out, `video` for one."""
    recipes = [_CHAT, *(other for other in _OTHERS if other[0] not in left_out)]
    loaded = [(kind, recipe.load(path)) for kind, path in recipes]
    return [DefaultModel(model.name, _command(kind, repository), model) for kind, model in loaded]


def _command(kind: str, repository: Path) -> list[str]:
    return [sys.executable, "-m", "tritonic", "build", kind, "--repository", str(repository)]
