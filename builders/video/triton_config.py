"""Render the `config.pbtxt` of a video pipeline. Its parts are rendered by `builders.diffusion.triton_config`."""

import time
from math import ceil
from typing import Any

from builders import config_pbtxt
from builders.diffusion.triton_config import MAX_SIDE, choose_sizes, owner
from builders.errors import RecipeError
from builders.video.family import VideoRecipe
from builders.video.pipeline import VideoPipeline

DEFAULT_STEPS = 50
"""Default number of denoising steps, unless the recipe sets one: that of diffusers' pipelines."""

DEFAULT_GUIDANCE = {"wan": 5.0, "animatediff": 7.5}
"""Default guidance scale by family, unless the recipe sets one: that of diffusers' pipeline."""

DEFAULT_SIZE = {"wan": (832, 480), "animatediff": (512, 512)}
"""Default width and height by family, in pixels: those of diffusers' pipeline."""

TEMPORAL_FACTOR = {"wan": 4, "animatediff": 1}
"""Frames of the video for one latent frame, by family: numbers of frames are multiples of it plus 1."""

DEFAULT_LENGTH = {"animatediff": (16, 8)}
"""Frames, and frames a second, of families for which the defaults of a recipe are not right."""

SMALLEST_SIDE = 256
LARGEST_SIDE = 1280
"""Sides of a video between which a recipe without sizes accepts all."""

REFERENCES = {"none": ["frames"], "first-frame": ["image", "frames"], "channels": ["image"]}
"""The references that a pipeline takes, by its image conditioning."""


def default_guidance(recipe: VideoRecipe, pipeline: VideoPipeline) -> float:
    """Return the guidance scale for requests that set none."""
    chosen = recipe.videos.default_guidance
    return DEFAULT_GUIDANCE[pipeline.family] if chosen is None else chosen


def numbers_of_frames(recipe: VideoRecipe, family: str) -> tuple[int, int]:
    """Return the default and the largest number of frames. Raises RecipeError for one that the family cannot make."""
    options, factor = recipe.videos, TEMPORAL_FACTOR[family]
    frames, _ = DEFAULT_LENGTH.get(family, (options.default_num_frames, 0))
    if "default_num_frames" in options.model_fields_set:
        frames = options.default_num_frames
    elif options.max_num_frames is not None:
        frames = min(frames, options.max_num_frames)
    # The model generates whole latent frames; the backend drops the frames beyond the length that was asked for.
    most = options.max_num_frames or 1 + ceil((frames - 1) / factor) * factor
    if (most - 1) % factor:
        raise RecipeError(f"max_num_frames must be a multiple of {factor} plus 1, not {most}.")
    if most < frames:
        raise RecipeError("max_num_frames is below default_num_frames.")
    return frames, most


def length_options(recipe: VideoRecipe, pipeline: VideoPipeline) -> dict[str, int]:
    """Return the parameters that name the model's lengths and frame rates.

    Raises RecipeError for a number of frames that the model cannot make.
    """
    options, factor = recipe.videos, pipeline.temporal_factor
    frames, most = numbers_of_frames(recipe, pipeline.family)
    _, fps = DEFAULT_LENGTH.get(pipeline.family, (0, options.default_fps))
    if "default_fps" in options.model_fields_set:
        fps = options.default_fps
    if 1 + (most - 1) // factor > pipeline.max_latent_frames:
        raise RecipeError(
            f"This model has positions for {pipeline.max_latent_frames} latent frames; max_num_frames is more."
        )
    return {
        "default_num_frames": frames,
        "max_num_frames": most,
        "frame_multiple": factor,
        "default_fps": fps,
        "max_fps": max(options.max_fps, fps),
    }


def render_pipeline(recipe: VideoRecipe, pipeline: VideoPipeline) -> str:
    """Return the `config.pbtxt` of the pipeline model. Raises RecipeError if its sizes do not suit the model."""
    options = recipe.videos
    return config_pbtxt.render(
        recipe.name,
        "diffusion",
        config_pbtxt.VIDEO_INPUTS,
        config_pbtxt.VIDEO_OUTPUTS,
        {
            "served_name": recipe.served_name or recipe.name,
            "operations": ["generate_video"],
            "signature": "video",
            "modalities": ["text", "image", "video"],
            "references": REFERENCES[pipeline.image_conditioning],
            "requires_image": pipeline.image_conditioning == "channels",
            "owned_by": owner(recipe),
            "created": int(time.time()),
            **size_options(recipe, pipeline),
            "default_steps": options.default_steps or DEFAULT_STEPS,
            "max_steps": max(options.max_steps, options.default_steps or 0),
            "default_guidance": default_guidance(recipe, pipeline),
            **length_options(recipe, pipeline),
            "max_rows": recipe.max_rows,
            "precision": recipe.precision,
        },
        decoupled=True,
    )


def size_options(recipe: VideoRecipe, pipeline: VideoPipeline) -> dict[str, Any]:
    """Return the parameters that name the model's sizes, in pixels. Raises RecipeError if one does not suit it."""
    multiple, limit = pipeline.size_multiple, min(MAX_SIDE, pipeline.max_side or MAX_SIDE)
    least, most = (min(side, limit) // multiple * multiple for side in (SMALLEST_SIDE, LARGEST_SIDE))
    width, height = (min(side, limit) // multiple * multiple for side in DEFAULT_SIZE[pipeline.family])
    return choose_sizes(recipe.videos, multiple, limit, (least, most), (width, height))
