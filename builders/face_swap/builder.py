"""Build a model that swaps faces: fetch, export, verify."""

import importlib.util
import time
from pathlib import Path
from typing import Any

from builders import config_pbtxt, subprocess_step
from builders.config_pbtxt import BYTES, FP32, INT32, TensorConfig
from builders.engine_targets import CUDA_PARAMETERS, EngineTargets
from builders.errors import MissingDependency, RecipeError, VerificationFailed
from builders.face_swap import sources, swapper
from builders.face_swap.family import FaceSwapRecipe
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source

TARGETS = EngineTargets("models that swap faces", {("onnx", "cpu"): ("fp32",), ("onnx", "cuda"): ("fp32",)})
UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization", "context_length")
MAX_DIFFERENCE = 1e-4
"""Largest allowed difference of an output from PyTorch's. Scores and points are numbers from 0 to 1."""

INPUTS = (
    TensorConfig("source", BYTES, (1,)),
    TensorConfig("target", BYTES, (1,)),
    TensorConfig("output_format", BYTES, (1,), optional=True),
    TensorConfig("quality", INT32, (1,), optional=True),
)
OUTPUTS = (
    TensorConfig("progress", FP32, (1,)),
    TensorConfig("image", BYTES, (1,)),
    TensorConfig("width", INT32, (1,)),
    TensorConfig("height", INT32, (1,)),
    TensorConfig("num_faces", INT32, (1,)),
)
"""The signature `face_swap` of docs/architecture.md."""


class FaceSwapBuilder(Builder):
    """Builds models that swap faces."""

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the source that a recipe names. Raises RecipeError, SourceUnavailable."""
        return sources.resolve(source)

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs. Raises UnsupportedModel, RecipeError, MissingDependency."""
        assert isinstance(recipe, FaceSwapRecipe) and isinstance(source, sources.FaceSwapSource)
        TARGETS.check(recipe.target, recipe.device, recipe.precision)
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of models that swap faces.")
        for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        return source.scratch_bytes() + sum(path.stat().st_size for path in source.swapper_files()) + 32_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the networks and `config.pbtxt` into `folder`; return the figures of the verification."""
        assert isinstance(recipe, FaceSwapRecipe) and isinstance(source, sources.FaceSwapSource)
        progress.begin("fetch", recipe.source)
        checkpoint = source.fetch(scratch, progress).folder
        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        engine = folder / "1"
        request = {"checkpoint": str(checkpoint), "output": str(engine)}
        found = subprocess_step.run("builders.face_swap.onnx_export:export", request, "The ONNX exporter")
        progress.begin("verify", "against PyTorch")
        largest = max(found.values())
        if not largest <= MAX_DIFFERENCE:  # also for NaN
            raise VerificationFailed(f"The networks differ from PyTorch's by {largest:.2g}; at most {MAX_DIFFERENCE}.")
        if source.swapper is not None:
            swapper.install(source.swapper, engine)
        (folder / "config.pbtxt").write_text(_config(recipe), encoding="utf-8", newline="")
        return {"difference_max": largest, "is_neural": source.swapper is not None}


def _config(recipe: FaceSwapRecipe) -> str:
    on_gpu = recipe.device == "cuda"
    parameters = {
        "served_name": recipe.served_name or recipe.name,
        "operations": ["swap_face"],
        "signature": "face_swap",
        "max_faces": recipe.max_faces,
        "max_pixels": recipe.max_pixels,
        "max_waiting": recipe.max_waiting,
        "threads": recipe.threads,
        "owned_by": recipe.owned_by or "local",
        "created": int(time.time()),
        "precision": recipe.precision,
        **(CUDA_PARAMETERS if on_gpu else {}),
    }
    return config_pbtxt.render(
        recipe.name,
        "face_swap",
        INPUTS,
        OUTPUTS,
        parameters,
        decoupled=True,
        instance_kind="KIND_GPU" if on_gpu else None,
    )
