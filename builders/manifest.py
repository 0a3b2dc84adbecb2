"""Read and write `BUILD.json`, the record of a build in its model's folder."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders import gpu, registry
from builders.checkpoint import sha256
from builders.recipe import Recipe, quantization_of

FORMAT_VERSION = 2
"""Version of the builds of all families. Increase it when they install something else for the same recipe: models are
then rebuilt.

`Family.format_version` is added to it."""

FILE_NAME = "BUILD.json"
USER_OPTIONS = (
    "source",
    "revision",
    "served_name",
    "precision",
    "target",
    "context_length",
    "max_rows",
    "matryoshka",
    "truncate_prompt_tokens",
    "pictures",
    "videos",
)
"""Fields that a user may set to build a recipe differently, together with the options of the family's command."""

ENGINE_SUFFIXES = (".engine", ".plan")
"""Files of TensorRT, which run on the kind of GPU that compiled them. Its compute capability is recorded."""

RECORDED_PACKAGES = (
    "onnxruntime-genai",
    "onnxruntime",
    "onnx",
    "onnx-ir",
    "torch",
    "transformers",
    "diffusers",
    "tokenizers",
    "gguf",
    "numpy",
    "tensorrt",
    "nvidia-modelopt",
)


def fingerprint(recipe: Recipe, source_digest: str) -> str:
    """Return a hash that identifies a build: of the recipe and the weights, wherever the weights lie."""
    # Fields that another family alone reads must not change the fingerprints of this one's models.
    others = [family for name, family in registry.families().items() if name != recipe.family]
    unknown = {field for family in others for field in family.own_fields}
    # Nor may a field that a family adds later, in recipes that leave it at its default.
    added = {name: field for name, field in type(recipe).model_fields.items() if name not in Recipe.model_fields}
    unknown |= {name for name, field in added.items() if getattr(recipe, name) == field.default}
    identity = {
        "format": _format(recipe),
        "source": source_digest,
        "recipe": recipe.model_dump(mode="json", exclude={"source", "revision", "quantization"} | unknown),
        "quantization": str(quantization_of(recipe)),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _format(recipe: Recipe) -> int:
    return FORMAT_VERSION + registry.find(recipe.family).format_version


def write(
    folder: Path,
    recipe: Recipe,
    source_digest: str,
    figures: Mapping[str, Any],
    seconds: float,
    parts: Sequence[Path] = (),
) -> None:
    """Write `BUILD.json`, which lists all files in `folder` and in `parts`, the folders of its sibling models."""
    record = {
        "format": _format(recipe),
        "fingerprint": fingerprint(recipe, source_digest),
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "source": recipe.source,
        "source_digest": source_digest,
        "recipe": recipe.model_dump(mode="json"),
        "verification": dict(figures),
        "versions": _versions(),
        "files": _files(folder),
    }
    if any(path.suffix in ENGINE_SUFFIXES for root in (folder, *parts) for path in root.rglob("*")):
        record["compute_capabilities"] = gpu.compute_capabilities()
    if parts:
        record["parts"] = {part.name: _files(part) for part in parts}
    (folder / FILE_NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }


def read(folder: Path) -> dict[str, Any] | None:
    """Return a model's `BUILD.json`; None if it is missing or unreadable."""
    try:
        record = json.loads((folder / FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_current(folder: Path, wanted: str) -> bool:
    """Return whether `folder` holds the build with the fingerprint `wanted`, with every file of all its models."""
    record = read(folder)
    if record is None or record.get("fingerprint") != wanted:
        return False
    models = {folder.name: record.get("files", {})} | record.get("parts", {})
    return all(files and _are_complete(folder.parent / model, files) for model, files in models.items())


def part_names(folder: Path) -> list[str]:
    """Return the names of the models that were installed together with the one in `folder`."""
    return list((read(folder) or {}).get("parts", {}))


def _are_complete(folder: Path, files: Mapping[str, Any]) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == file["size"] for name, file in files.items()
    )


@dataclass(frozen=True, slots=True)
class OutdatedBuild:
    """A model that today's recipe or builders would build differently."""

    reason: str
    """Continues a sentence that starts with the model's name."""
    is_customized: bool
    """True if a user chose other options or edited its configuration: then only the user should replace it."""


def find_outdated(folder: Path, recipe: Recipe, source_digest: str) -> OutdatedBuild | None:
    """Return why `folder` differs from what the recipe builds today; None if it does not, or was not built here.

    A model that the current builders built with other options is a user's choice, and not outdated.
    """
    record = read(folder)
    if record is None or record.get("fingerprint") == fingerprint(recipe, source_digest):
        return None
    built = record.get("recipe")
    customized = _is_chosen(built if isinstance(built, dict) else {}, recipe) or _is_edited(folder, record)
    if record.get("format") != _format(recipe):
        return OutdatedBuild("was built by another version of Tritonic", customized)
    return None if customized else OutdatedBuild("was built from another recipe or other weights", customized)


def _is_chosen(built: Mapping[str, Any], recipe: Recipe) -> bool:
    wanted = recipe.model_dump(mode="json")
    options = [option.field for option in registry.find(recipe.family).options]
    return any(built.get(field, wanted[field]) != wanted[field] for field in {*USER_OPTIONS, *options} & wanted.keys())


def _is_edited(folder: Path, record: Mapping[str, Any]) -> bool:
    config = folder / "config.pbtxt"
    known = record.get("files", {}).get(config.name, {}).get("sha256")
    return config.is_file() and sha256(config) != known


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in ("tritonic", *RECORDED_PACKAGES):
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
