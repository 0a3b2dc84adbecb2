"""`BUILD.json`: what was built from what."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders.checkpoint import sha256
from builders.recipe import QUANTIZATIONS, Recipe

FORMAT = 2
"""Raised when builders install something else for the same recipe, so that models are built anew."""

FILE = "BUILD.json"
TOOLS = ("onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir", "torch", "transformers", "tokenizers", "gguf", "numpy")


def fingerprint(recipe: Recipe, source_digest: str) -> str:
    """Identify a build: the same recipe over the same weights, wherever they lie, is the same build."""
    identity = {
        "format": FORMAT,
        "source": source_digest,
        "recipe": recipe.model_dump(mode="json", exclude={"source", "revision", "quantization"}),
        "quantization": str(recipe.quantization or QUANTIZATIONS.get(recipe.precision)),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def write(folder: Path, recipe: Recipe, source_digest: str, figures: Mapping[str, Any], seconds: float) -> None:
    """Write `BUILD.json` over everything that `folder` holds."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE
    }
    record = {
        "format": FORMAT,
        "fingerprint": fingerprint(recipe, source_digest),
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "source": recipe.source,
        "source_digest": source_digest,
        "recipe": recipe.model_dump(mode="json"),
        "verification": dict(figures),
        "versions": _versions(),
        "files": files,
    }
    (folder / FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any] | None:
    """Read a model's `BUILD.json`; None where there is none, or none that can be read."""
    try:
        record = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_current(folder: Path, wanted: str) -> bool:
    """Tell whether `folder` holds the build with the fingerprint `wanted`, and every file at its size."""
    record = read(folder)
    if record is None or record.get("fingerprint") != wanted:
        return False
    files = record.get("files", {})
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == file["size"] for name, file in files.items()
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in ("tritonic", *TOOLS):
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
