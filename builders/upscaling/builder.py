"""Build an upscaling model: fetch, export or copy its network, verify."""

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builders import repository, subprocess_step, tensorrt_plan
from builders.engine_targets import EngineTargets
from builders.errors import ExportFailed, MissingDependency, RecipeError, UnsupportedModel
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.upscaling import onnx_export, sources, triton_config, verify, weights
from builders.upscaling.architectures import recognize
from builders.upscaling.family import UpscalingRecipe
from builders.upscaling.triton_config import Tiling

NETWORK_FILE = "model.onnx"
TARGETS = EngineTargets(
    "upscaling models",
    {("onnx", "cpu"): ("fp32",), ("onnx", "cuda"): ("fp32", "fp16"), ("tensorrt", "cuda"): ("fp32", "fp16")},
)
UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization", "context_length")


class UpscalingBuilder(Builder):
    """Builds upscaling models."""

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the source that a recipe names. Raises RecipeError, SourceUnavailable."""
        return sources.resolve(source, revision)

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Return the name of the model that holds the network, if it is not the backend that runs it."""
        return (triton_config.network_name(recipe),) if recipe.target == "tensorrt" else ()

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs. Raises UnsupportedModel, RecipeError, MissingDependency."""
        assert isinstance(recipe, UpscalingRecipe)
        TARGETS.check(recipe.target, recipe.device, recipe.precision)
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of upscaling models.")
        for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        if recipe.target == "tensorrt":
            tensorrt_plan.check()
        return 4 * source.scratch_bytes() + 16_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the network and `config.pbtxt` into `folder`; return the figures of the verification."""
        assert isinstance(recipe, UpscalingRecipe)
        progress.begin("fetch", recipe.source)
        file = weights.find(source.fetch(scratch, progress).folder)

        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        served = folder / "1"
        served.mkdir()
        engine = (served if recipe.target == "onnx" else scratch) / NETWORK_FILE
        is_copy = file.suffix == ".onnx"
        tiling = _copy(recipe, file, engine) if is_copy else _export(recipe, file, engine)

        progress.begin("verify", "against the source network")
        theirs = verify.onnx_reference(file) if is_copy else verify.torch_reference(file)
        figures = verify.verify(engine, theirs, tiling.scale, tiling.scales, recipe.precision, progress)
        if recipe.target == "tensorrt":
            _build_plan(recipe, tiling, engine, folder, progress)
        config = triton_config.render_model(recipe, tiling)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
        return asdict(figures)


def _export(recipe: UpscalingRecipe, file: Path, engine: Path) -> Tiling:
    """Export a network of a known architecture, in a process of its own."""
    architecture = recognize({name: tuple(tensor.shape) for name, tensor in weights.read(file).items()})
    request = {"source": str(file), "output": str(engine), "half": recipe.precision == "fp16"}
    subprocess_step.run("builders.upscaling.onnx_export:export", request, "The ONNX exporter")
    return triton_config.choose_tiling(recipe, architecture.scale, architecture.tile, architecture.radius)


def _copy(recipe: UpscalingRecipe, file: Path, engine: Path) -> Tiling:
    """Copy a network that is ONNX already. It keeps its precision."""
    if recipe.precision != "fp32":
        raise UnsupportedModel("A network that comes as ONNX is not converted: build it in fp32.")
    try:
        scale = onnx_export.copy_onnx(str(file), str(engine))
    except Exception as error:  # onnx and onnxruntime raise any exception for a file that they cannot read
        raise ExportFailed(f"{file.name} is no network that upscales: {' '.join(str(error).split())[:500]}.") from None
    return triton_config.choose_tiling(recipe, scale)


def _build_plan(recipe: UpscalingRecipe, tiling: Tiling, onnx: Path, folder: Path, progress: Progress) -> None:
    """Compile the network to a plan in a model of its own, next to `folder`, and compare it with its ONNX file."""
    network = repository.parts_folder(folder) / triton_config.network_name(recipe)
    plan = network / "1" / tensorrt_plan.FILE_NAME
    progress.update("building the plan of the network")
    tensorrt_plan.build("network", onnx, plan, triton_config.plan_profile(recipe, tiling))
    if not tensorrt_plan.has_python_package():
        progress.note("The plan was not compared: that needs the Python package tensorrt.")
    elif not tensorrt_plan.compare("network", onnx, plan, triton_config.plan_examples(recipe), recipe.precision):
        progress.note("The plan was not compared: this PyTorch does not know the GPU.")
    (network / "config.pbtxt").write_text(triton_config.render_network(recipe), encoding="utf-8", newline="")
