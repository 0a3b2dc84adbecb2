"""Build a recipe into a model repository: fetch, export, verify, install."""

import errno
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import manifest, registry, repository
from builders.errors import MissingDependency, NotEnoughSpace, RepositoryBusy
from builders.progress import NullProgress, Progress
from builders.recipe import Recipe
from builders.sources import Source


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A model in the repository."""

    folder: Path
    is_new: bool
    """False if the repository already held it, built from the same recipe and source."""
    metrics: dict[str, Any]
    """The figures of the verification: the distance of the engine from its source. See
    `builders.llm.verify.LogitMetrics`, `builders.embedding.verify.EmbeddingMetrics`, `builders.diffusion.verify`."""
    seconds: float


def resolve_source(recipe: Recipe) -> Source:
    """Return a recipe's source, in the layout that its family reads. Raises RecipeError, SourceUnavailable."""
    return registry.load_builder(recipe.family).resolve(recipe.source, recipe.revision)


def build(recipe: Recipe, into: Path, *, force: bool = False, progress: Progress | None = None) -> BuildResult:
    """Build a recipe into the repository `into`; skip the work if it holds the same build already, unless `force`.

    A failure or an interruption at any moment leaves the repository as it was. Raises BuildError.
    """
    started = time.monotonic()
    progress = progress or NullProgress()
    try:
        builder = registry.load_builder(recipe.family)
        source = builder.resolve(recipe.source, recipe.revision)
        needed = builder.check(recipe, source)
        digest = source.digest()
        target = into / recipe.name
        if not force and manifest.is_current(target, manifest.fingerprint(recipe, digest)):
            return BuildResult(target, False, (manifest.read(target) or {})["verification"], time.monotonic() - started)
        siblings = builder.sibling_models(recipe, source)
        for name in (recipe.name, *siblings):
            _refuse_foreign(into / name, target, force)
        with repository.staging_area(into, recipe.name) as stage:
            repository.check_disk_space(stage.root, needed)
            figures = builder.build(recipe, source, stage.model_folder, stage.scratch_folder, progress)
            progress.begin("install", str(target))
            manifest.write(stage.model_folder, recipe, digest, figures, time.monotonic() - started, stage.part_folders)
            stage.install(
                stale=set(manifest.part_names(target)) - set(siblings),
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
    """Raise RepositoryBusy if `found` exists and is neither the model `target`, built here, nor one of its parts."""
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
