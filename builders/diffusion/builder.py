"""Build a diffusers pipeline: fetch it, export and verify each part, verify all parts together."""

import gc
import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from builders import repository, tensorrt_plan
from builders.diffusion import export_step, pipeline_json, sources, tensorrt, triton_config
from builders.diffusion import pipeline as pipelines
from builders.diffusion.family import DiffusionRecipe
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.reference_pipeline import Engines
from builders.diffusion.verify import verify_images, verify_part
from builders.engine_targets import EngineTargets
from builders.errors import MissingDependency, NotEnoughSpace, RecipeError
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source

UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization", "context_length")
"""Recipe fields for text-generation models that have no meaning here."""

TARGETS = EngineTargets(
    "image models",
    {("onnx", "cpu"): ("fp32",), ("onnx", "cuda"): ("fp32", "fp16"), ("tensorrt", "cuda"): ("fp32", "fp16")},
)


class DiffusionBuilder(Builder):
    """Builds diffusers pipelines."""

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the pipeline that a recipe names as its source. Raises RecipeError, SourceUnavailable."""
        return sources.resolve(source, revision)

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Return the names of the parts' models."""
        index = source.config()
        encoders = [
            name.replace("_", "-") for name in pipelines.TEXT_ENCODER_FOLDERS if pipelines.component_class(index, name)
        ]
        names = (*encoders, "denoiser", "vae-encoder", "vae-decoder")
        return tuple(pipeline_json.part_model_name(recipe.name, name) for name in names)

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs.

        Raises UnsupportedModel, RecipeError, NotEnoughSpace, MissingDependency.
        """
        assert isinstance(recipe, DiffusionRecipe)
        TARGETS.check(recipe.target, recipe.device, recipe.precision)
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of image models.")
        for package in ("torch", "diffusers", "transformers", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        if recipe.target == "tensorrt":
            tensorrt_plan.check()
        pipelines.check_index(source.config())
        weights = 4 * (source.num_parameters() or 0)
        total = psutil.virtual_memory().total
        if weights > total:
            raise NotEnoughSpace(
                f"The pipeline has {weights / 4e9:.1f} billion parameters, so building it needs {weights / 1e9:.0f} GB "
                f"of memory, and this machine has {total / 1e9:.0f} GB. Build it on a larger one and copy its models."
            )
        engines = 1 if recipe.target == "onnx" else 2
        return source.scratch_bytes() + engines * weights + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the pipeline model into `folder` and its parts next to it; return the figures of the verification."""
        assert isinstance(recipe, DiffusionRecipe)
        progress.begin("fetch", recipe.source)
        pipeline = pipelines.read(source.fetch(scratch, progress).folder)
        pipeline_config = triton_config.render_pipeline(recipe, pipeline)
        parts = pipeline_parts(pipeline)
        parts_folder = repository.parts_folder(folder)
        names = {part.name: pipeline_json.part_model_name(recipe.name, part.name) for part in parts}

        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        onnx = parts_folder if recipe.target == "onnx" else scratch / "onnx"
        exported = export_step.export(
            pipeline,
            {part: onnx / name / "1" for part, name in names.items()},
            progress,
            half=recipe.precision == "fp16",
        )
        for name, report in exported.items():
            if report["exporter"] != "dynamo":
                progress.note(
                    f"{name} was written by the older exporter, because the newer one failed: {report['reason']}"
                )
        engine = folder / "1"
        engine.mkdir()
        pipeline_json.write(pipeline, recipe.name, engine, triton_config.max_part_batch(recipe))

        progress.begin("verify", "against diffusers")
        figures: dict[str, Any] = {}
        for number, part in enumerate(parts):
            progress.update(f"comparing {part.name}", number / (len(parts) + 1))
            engine_file = onnx / names[part.name] / "1" / "model.onnx"
            metrics = verify_part(pipeline, part, engine_file, recipe.precision)
            measured = {name: value for name, value in asdict(metrics).items() if value is not None}
            figures[part.name] = measured | exported[part.name]
            gc.collect()
        progress.update("comparing images", len(parts) / (len(parts) + 1))
        engines = Engines(engine, lambda name: onnx / name / "1" / "model.onnx")
        guidance = triton_config.default_guidance(recipe, pipeline)
        figures["together"] = asdict(verify_images(pipeline, engines, guidance, recipe.precision))
        del engines

        if recipe.target == "tensorrt":
            sizes = tensorrt.plan_sizes(recipe, pipeline)
            for part in parts:
                plan = parts_folder / names[part.name] / "1" / tensorrt_plan.FILE_NAME
                onnx_file = onnx / names[part.name] / "1" / "model.onnx"
                tensorrt.build_plan(part, onnx_file, plan, sizes, recipe.precision, progress)
        for part in parts:
            text = triton_config.render_part(recipe, names[part.name], part)
            (parts_folder / names[part.name] / "config.pbtxt").write_text(text, encoding="utf-8", newline="")
        (folder / "config.pbtxt").write_text(pipeline_config, encoding="utf-8", newline="")
        return figures
