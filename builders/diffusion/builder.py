"""Build a pipeline of diffusers that makes images."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builders.diffusion import export_step, pipeline_json, sources, tensorrt, triton_config
from builders.diffusion import pipeline as pipelines
from builders.diffusion.family import DiffusionRecipe
from builders.diffusion.part_comparison import PartMetrics
from builders.diffusion.parts import PipelinePart, pipeline_parts
from builders.diffusion.pipeline import Pipeline
from builders.diffusion.pipeline_builder import PipelineBuilder
from builders.diffusion.reference_pipeline import Engines
from builders.diffusion.verify import verify_images, verify_part
from builders.engine_targets import EngineTargets
from builders.progress import Progress

TARGETS = EngineTargets(
    "image models",
    {("onnx", "cpu"): ("fp32",), ("onnx", "cuda"): ("fp32", "fp16"), ("tensorrt", "cuda"): ("fp32", "fp16")},
)


class DiffusionBuilder(PipelineBuilder[Pipeline, DiffusionRecipe]):
    """Builds image pipelines."""

    kind = sources.IMAGES
    targets = TARGETS

    def part_names(self, index: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the parts."""
        encoders = [
            name.replace("_", "-") for name in pipelines.TEXT_ENCODER_FOLDERS if pipelines.component_class(index, name)
        ]
        return (*encoders, "denoiser", "vae-encoder", "vae-decoder")

    def read(self, folder: Path) -> Pipeline:
        """Read the pipeline in a folder."""
        return pipelines.read(folder)

    def parts(self, pipeline: Pipeline) -> tuple[PipelinePart, ...]:
        """Return the parts of a pipeline."""
        return pipeline_parts(pipeline)

    def export(
        self, recipe: DiffusionRecipe, pipeline: Pipeline, outputs: dict[str, Path], progress: Progress
    ) -> dict[str, dict[str, str]]:
        """Export the parts named in `outputs`."""
        return export_step.export(pipeline, outputs, progress, half=recipe.precision == "fp16")

    def describe(self, pipeline: Pipeline, name: str, folder: Path, max_batch: int) -> object:
        """Write `pipeline.json` and the tokenizers."""
        return pipeline_json.write(pipeline, name, folder, max_batch)

    def compare_part(self, recipe: DiffusionRecipe, pipeline: Pipeline, part: PipelinePart, model: Path) -> PartMetrics:
        """Compare a part's engine with its source network."""
        return verify_part(pipeline, part, model, recipe.precision)

    def compare_together(self, recipe: DiffusionRecipe, pipeline: Pipeline, engines: Engines) -> dict[str, Any]:
        """Compare images of one seed."""
        guidance = triton_config.default_guidance(recipe, pipeline)
        return asdict(verify_images(pipeline, engines, guidance, recipe.precision))

    def plan_sizes(self, recipe: DiffusionRecipe, pipeline: Pipeline) -> tensorrt.PlanShapes:
        """Return the sizes of the recipe's plans."""
        return tensorrt.plan_sizes(recipe, pipeline)

    def render(self, recipe: DiffusionRecipe, pipeline: Pipeline) -> str:
        """Return the `config.pbtxt` of the pipeline model."""
        return triton_config.render_pipeline(recipe, pipeline)
