"""Build a pipeline of diffusers that makes videos."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builders.diffusion import sources, tensorrt
from builders.diffusion.part_comparison import PartMetrics
from builders.diffusion.parts import PipelinePart
from builders.diffusion.pipeline import component_class
from builders.diffusion.pipeline_builder import PipelineBuilder
from builders.diffusion.reference_pipeline import Engines
from builders.engine_targets import EngineTargets
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.video import export_step, pipeline_json, read_pipeline, triton_config
from builders.video.family import VideoRecipe
from builders.video.motion_parts import MOTION_PARTS
from builders.video.motion_pipeline import is_motion
from builders.video.motion_sources import SEPARATOR, MotionSource
from builders.video.parts import pipeline_parts
from builders.video.pipeline import VideoPipeline
from builders.video.plan_sizes import plan_sizes
from builders.video.verify import verify_part, verify_videos

PACKAGED_PIPELINES = {"moving-shapes": Path(__file__).parents[1] / "moving_shapes" / "weights"}
"""Pipelines whose weights are package data of Tritonic, by name."""

VIDEOS = sources.PipelineKind(
    read_pipeline.check_index,
    read_pipeline.folders,
    PACKAGED_PIPELINES,
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
)

TARGETS = EngineTargets(
    "video models",
    {("onnx", "cpu"): ("fp32",), ("onnx", "cuda"): ("fp32", "fp16"), ("tensorrt", "cuda"): ("fp32", "fp16")},
)


class VideoBuilder(PipelineBuilder[VideoPipeline, VideoRecipe]):
    """Builds Wan and AnimateDiff pipelines."""

    kind = VIDEOS
    targets = TARGETS

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the pipeline that a recipe names, or the pipeline and the motion adapter ("… + …").

        `revision` is that of the pipeline. Raises RecipeError, SourceUnavailable.
        """
        if SEPARATOR in source:
            return MotionSource.resolve(source, revision)
        return super().resolve(source, revision)

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs (`PipelineBuilder.check`)."""
        needed = super().check(recipe, source)
        assert isinstance(recipe, VideoRecipe)
        triton_config.numbers_of_frames(recipe, read_pipeline.check_index(source.config()))
        return needed

    def part_names(self, index: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the parts."""
        if is_motion(index):
            return MOTION_PARTS
        image_encoder = ("image-encoder",) if component_class(index, "image_encoder") else ()
        vae = [f"vae-{side}-{piece}" for side in ("encoder", "decoder") for piece in ("first", "next")]
        return ("text-encoder", *image_encoder, "denoiser", *vae)

    def read(self, folder: Path) -> VideoPipeline:
        """Read the pipeline in a folder."""
        return read_pipeline.read(folder)

    def parts(self, pipeline: VideoPipeline) -> tuple[PipelinePart, ...]:
        """Return the parts of a pipeline."""
        return pipeline_parts(pipeline)

    def export(
        self, recipe: VideoRecipe, pipeline: VideoPipeline, outputs: dict[str, Path], progress: Progress
    ) -> dict[str, dict[str, str]]:
        """Export the parts named in `outputs`, for onnxruntime with an operator of its own for attention."""
        half, fused = recipe.precision == "fp16", recipe.target == "onnx"
        return export_step.export(pipeline, outputs, progress, half=half, fused=fused)

    def describe(self, pipeline: VideoPipeline, name: str, folder: Path, max_batch: int) -> object:
        """Write `pipeline.json` and the tokenizer."""
        return pipeline_json.write(pipeline, name, folder, max_batch)

    def compare_part(
        self, recipe: VideoRecipe, pipeline: VideoPipeline, part: PipelinePart, model: Path
    ) -> PartMetrics:
        """Compare a part's engine with its source network."""
        return verify_part(pipeline, part, model, recipe.precision)

    def compare_together(self, recipe: VideoRecipe, pipeline: VideoPipeline, engines: Engines) -> dict[str, Any]:
        """Compare videos of one seed."""
        guidance = triton_config.default_guidance(recipe, pipeline)
        return asdict(verify_videos(pipeline, engines, guidance, recipe.precision))

    def plan_sizes(self, recipe: VideoRecipe, pipeline: VideoPipeline) -> tensorrt.PlanShapes:
        """Return the sizes of the recipe's plans."""
        return plan_sizes(recipe, pipeline)

    def render(self, recipe: VideoRecipe, pipeline: VideoPipeline) -> str:
        """Return the `config.pbtxt` of the pipeline model."""
        return triton_config.render_pipeline(recipe, pipeline)
