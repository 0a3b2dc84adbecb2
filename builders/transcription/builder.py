"""Build a transcription model from a Whisper: fetch, export, verify."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import psutil

from builders import subprocess_step
from builders.errors import MissingDependency, NotEnoughSpace, RecipeError, UnsupportedModel
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.transcription import limits, triton_config, voice_activity, whisper_model
from builders.transcription.export_process import VERIFYING
from builders.transcription.family import TranscriptionRecipe

PRECISIONS = {"cpu": ("int8", "fp32"), "cuda": ("fp16", "fp32")}
"""Number formats of the weights by device. onnxruntime has no fp16 kernels for CPUs, and no int8 ones for GPUs."""

UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization", "context_length")
"""Recipe fields for text-generation models that have no meaning here."""

MEMORY_COPIES = 5
"""Copies of the fp32 weights that the export holds at its worst moment. A decoder of 2.3 GB took 12.8 GB."""


class TranscriptionBuilder(Builder):
    """Builds transcription models."""

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs.

        Raises UnsupportedModel, RecipeError, NotEnoughSpace, MissingDependency.
        """
        assert isinstance(recipe, TranscriptionRecipe)
        if recipe.target != "onnx":
            raise UnsupportedModel(f"The target {recipe.target!r} is not built yet; the target that is: onnx.")
        if recipe.precision not in PRECISIONS[recipe.device]:
            raise UnsupportedModel(
                f"Transcription models for {recipe.device} are built in {' and '.join(PRECISIONS[recipe.device])}, not "
                f"{recipe.precision}."
            )
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of transcription models.")
        for package in ("torch", "transformers", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        whisper_model.check_config(source.config())
        weights = 4 * (source.num_parameters() or 0)
        memory = psutil.virtual_memory().total
        if MEMORY_COPIES * weights > memory:
            raise NotEnoughSpace(
                f"Building this model needs {MEMORY_COPIES * weights / 1e9:.0f} GB of memory, and this machine has "
                f"{memory / 1e9:.0f} GB. Build it on a larger one and copy the model's folder."
            )
        return source.scratch_bytes() + weights + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the engine and `config.pbtxt` into `folder`; return the figures of the verification."""
        assert isinstance(recipe, TranscriptionRecipe)
        progress.begin("fetch", recipe.source)
        checkpoint = source.fetch(scratch, progress)
        model = whisper_model.read(checkpoint)
        if recipe.tasks and "translate" in recipe.tasks and not model.multilingual:
            raise RecipeError("This Whisper knows English alone, and cannot translate.")
        engine = folder / "1"
        engine.mkdir()
        voice_activity.write(engine, progress)
        shutil.copyfile(checkpoint.folder / "tokenizer.json", engine / "tokenizer.json")

        progress.begin("export", f"{recipe.precision} for {recipe.device}")

        def follow(line: str) -> None:
            if line == VERIFYING:
                progress.begin("verify", "against transformers")
            else:
                progress.update(line.lower())

        request = {"folder": str(checkpoint.folder), "output": str(engine), "precision": recipe.precision}
        figures: dict[str, Any] = subprocess_step.run(
            "builders.transcription.export_process:export", request, "The ONNX exporter", follow
        )
        limits.check(figures, recipe.precision)
        config = triton_config.render(recipe, model)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
        return figures
