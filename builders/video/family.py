"""The family `video`: Wan and AnimateDiff pipelines of diffusers.

They are served by `backends/diffusion` on engines that Triton batches.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from builders.diffusion.family import DiffusionRecipe, pipeline_options, summarize_parts
from builders.family import Builder, Family
from builders.recipe import DEFAULT_VIDEO_RECIPE, SizeOptions


class VideoOptions(SizeOptions):
    """Options of video requests."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] = 100
    default_num_frames: Annotated[int, Field(ge=1, le=4097)] = 80
    """Frames of a video for requests that name no length. AnimateDiff's default is 16."""
    max_num_frames: Annotated[int, Field(ge=1, le=4097)] | None = None
    """Largest number of frames, usually the length that the model was trained at. Of a Wan model it is a multiple of 4
    plus 1. Default: the least such number from `default_num_frames` on.
    """
    default_fps: Annotated[int, Field(ge=1, le=120)] = 16
    """Frames per second at which the model's motion looks natural. AnimateDiff's default is 8."""
    max_fps: Annotated[int, Field(ge=1, le=120)] = 60

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        # Numbers of frames depend on the model; `builders.video.triton_config.length_options` checks them.
        if self.max_fps < self.default_fps:
            raise ValueError("max_fps is below default_fps")
        return self


class VideoRecipe(DiffusionRecipe):
    """A recipe of a video pipeline."""

    max_rows: Annotated[int, Field(ge=1, le=1024)] = 4
    """Videos that are generated side by side."""
    videos: VideoOptions = VideoOptions()


def _load_builder() -> Builder:
    from builders.video.builder import VideoBuilder

    return VideoBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    together = figures["together"]
    return (
        f"Against diffusers: {together['frames']} frames in {together['steps']} steps, largest difference of a pixel "
        f"{together['pixel_difference']:.2g} of 1; {summarize_parts(figures)}"
    )


FAMILY = Family(
    name="video",
    command="video",
    help="Build a video model from a Wan or AnimateDiff pipeline: its parts become models, installed together.",
    source_help="Hugging Face id, local diffusers folder, or packaged:moving-shapes (the default); for AnimateDiff "
    'also "PIPELINE + ADAPTER", a Stable Diffusion pipeline and a motion adapter.',
    options=pipeline_options("Videos"),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_VIDEO_RECIPE,
    recipe=VideoRecipe,
)
