"""Build a recipe into a repository: fetch, export, verify, install."""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from builders import manifest, repository, sources
from builders.errors import MissingDependency, NotEnoughSpace, RecipeError, RepositoryBusy
from builders.progress import NullProgress, Progress
from builders.recipe import Recipe
from builders.sources import Source


class Family(Protocol):
    """Builds one kind of model."""

    def check(self, recipe: Recipe, source: Source) -> int:
        """Refuse, before any heavy work, what cannot be built; give the bytes of disk that a build needs."""

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Fetch, export and verify; fill `folder` with `config.pbtxt` and `1/`; give the verification's figures."""


@runtime_checkable
class MultiModelFamily(Protocol):
    """A family that installs several models together, and has a layout of sources of its own."""

    def resolve(self, source: str, revision: str | None) -> Source:
        """Tell what a source is by how it is written. Raises RecipeError, SourceUnavailable."""

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Name the models that `build` puts beside the one that is named after the recipe."""


def _llm() -> Family:
    from builders.llm.family import LLMFamily

    return LLMFamily()


def _embedding() -> Family:
    from builders.embedding.family import EmbeddingFamily

    return EmbeddingFamily()


def _diffusion() -> Family:
    from builders.diffusion.family import DiffusionFamily

    return DiffusionFamily()


FAMILIES: dict[str, Callable[[], Family]] = {
    "llm": _llm,
    "embedding": _embedding,
    "diffusion": _diffusion,
}
"""Families are imported when they are asked for: most machines lack what they need."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A model in the repository."""

    folder: Path
    is_new: bool
    """False: it was there already, from the same recipe and source."""
    metrics: dict[str, Any]
    """How far the engine is from its source; see `builders.llm.verify.LogitMetrics`,
    `builders.embedding.verify.EmbeddingMetrics`, `builders.diffusion.verify`."""
    seconds: float


def resolve_source(recipe: Recipe) -> Source:
    """Find a recipe's source, in the layout that its family reads. Raises RecipeError, SourceUnavailable."""
    if recipe.family not in FAMILIES:
        raise RecipeError(f"There is no family {recipe.family!r}. Known: {', '.join(sorted(FAMILIES))}.")
    family = FAMILIES[recipe.family]()
    find = family.resolve if isinstance(family, MultiModelFamily) else sources.resolve
    return find(recipe.source, recipe.revision)


def build(recipe: Recipe, into: Path, *, force: bool = False, progress: Progress | None = None) -> BuildResult:
    """Build a recipe into the repository `into`, unless it holds the same build already.

    Whatever goes wrong, also an interruption at any moment, the repository stays as it was. Raises BuildError.
    """
    started = time.monotonic()
    progress = progress or NullProgress()
    try:
        source = resolve_source(recipe)
        family = FAMILIES[recipe.family]()
        needed = family.check(recipe, source)
        digest = source.digest()
        target = into / recipe.name
        if not force and manifest.is_current(target, manifest.fingerprint(recipe, digest)):
            return BuildResult(target, False, (manifest.read(target) or {})["verification"], time.monotonic() - started)
        beside = family.sibling_models(recipe, source) if isinstance(family, MultiModelFamily) else ()
        for name in (recipe.name, *beside):
            _refuse_foreign(into / name, target, force)
        with repository.staging_area(into, recipe.name) as stage:
            repository.check_disk_space(stage.root, needed)
            figures = family.build(recipe, source, stage.model_folder, stage.scratch_folder, progress)
            progress.begin("install", str(target))
            manifest.write(stage.model_folder, recipe, digest, figures, time.monotonic() - started, stage.part_folders)
            stage.install(
                stale=set(manifest.part_names(target)) - set(beside),
                check=lambda found: _refuse_foreign(found, target, force),
            )
        return BuildResult(target, True, figures, time.monotonic() - started)
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name) from error
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
                f"{target} exists and was not built here (it has no {manifest.FILE_NAME}). Use --force to replace it."
            )
    elif found.name not in manifest.part_names(target):
        raise RepositoryBusy(
            f"{found} exists and is no part of a model that was built here. Use --force to replace it."
        )
