"""Build a recipe into a repository: fetch, export, verify, install."""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from builders import manifest, repository, sources
from builders.errors import MissingTools, NotEnoughSpace, RecipeError, RepositoryBusy
from builders.progress import Progress, Silent
from builders.recipe import Recipe
from builders.sources import Source


class Family(Protocol):
    """Builds one kind of model."""

    def check(self, recipe: Recipe, source: Source) -> int:
        """Refuse, before any heavy work, what cannot be built; give the bytes of disk that a build needs."""

    def make(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Fetch, export and verify; fill `folder` with `config.pbtxt` and `1/`; give the verification's figures."""


@runtime_checkable
class Several(Protocol):
    """A family that installs several models together, and has a layout of sources of its own."""

    def find(self, source: str, revision: str | None) -> Source:
        """Tell what a source is by how it is written. Raises RecipeError, SourceUnavailable."""

    def beside(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Name the models that `make` puts beside the one that is named after the recipe."""


def _llm() -> Family:
    from builders.llm import LLM

    return LLM()


def _embedding() -> Family:
    from builders.embedding import Embedding

    return Embedding()


def _diffusion() -> Family:
    from builders.diffusion.family import Diffusion

    return Diffusion()


FAMILIES: dict[str, Callable[[], Family]] = {
    "llm": _llm,
    "embedding": _embedding,
    "diffusion": _diffusion,
}
"""Families are imported when they are asked for: most machines lack what they need."""


@dataclass(frozen=True, slots=True)
class Built:
    """A model in the repository."""

    folder: Path
    fresh: bool
    """False: it was there already, from the same recipe and source."""
    figures: dict[str, Any]
    """How far the engine is from its source; see `builders.verify.Figures`, `builders.sentence_verify.Figures`,
    `builders.diffusion.verify`."""
    seconds: float


def source_of(recipe: Recipe) -> Source:
    """Find a recipe's source, in the layout that its family reads. Raises RecipeError, SourceUnavailable."""
    if recipe.family not in FAMILIES:
        raise RecipeError(f"There is no family {recipe.family!r}. Known: {', '.join(sorted(FAMILIES))}.")
    family = FAMILIES[recipe.family]()
    find = family.find if isinstance(family, Several) else sources.find
    return find(recipe.source, recipe.revision)


def build(recipe: Recipe, into: Path, *, force: bool = False, progress: Progress | None = None) -> Built:
    """Build a recipe into the repository `into`, unless it holds the same build already.

    Whatever goes wrong, also an interruption at any moment, the repository stays as it was. Raises BuildError.
    """
    started = time.monotonic()
    progress = progress or Silent()
    try:
        source = source_of(recipe)
        family = FAMILIES[recipe.family]()
        needed = family.check(recipe, source)
        digest = source.digest()
        target = into / recipe.name
        if not force and manifest.is_current(target, manifest.fingerprint(recipe, digest)):
            return Built(target, False, (manifest.read(target) or {})["verification"], time.monotonic() - started)
        beside = family.beside(recipe, source) if isinstance(family, Several) else ()
        for name in (recipe.name, *beside):
            _refuse_foreign(into / name, target, force)
        with repository.stage(into, recipe.name) as stage:
            repository.check_space(stage.root, needed)
            figures = family.make(recipe, source, stage.model, stage.scratch, progress)
            progress.begin("install", str(target))
            manifest.write(stage.model, recipe, digest, figures, time.monotonic() - started, stage.parts)
            stage.install(
                stale=set(manifest.parts_of(target)) - set(beside),
                check=lambda found: _refuse_foreign(found, target, force),
            )
        return Built(target, True, figures, time.monotonic() - started)
    except ModuleNotFoundError as error:
        raise MissingTools(error.name) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughSpace(
                f"The disk became full while building {recipe.name}; nothing was installed."
            ) from error
        raise


def _refuse_foreign(found: Path, target: Path, force: bool) -> None:
    """Refuse to replace the folder `found` unless it is the model in `target`, built here, or one of its parts."""
    if force or not found.exists():
        return
    if found.name == target.name:
        if manifest.read(target) is None:
            raise RepositoryBusy(
                f"{target} exists and was not built here (it has no {manifest.FILE}). Use --force to replace it."
            )
    elif found.name not in manifest.parts_of(target):
        raise RepositoryBusy(
            f"{found} exists and is no part of a model that was built here. Use --force to replace it."
        )
