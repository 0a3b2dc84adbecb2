"""Render the `config.pbtxt` of a video pipeline. Its parts are rendered by `builders.diffusion.triton_config`."""

import time
from typing import Any

from builders import config_pbtxt
from builders.diffusion.triton_config import MAX_SIDE, choose_sizes, owner
from builders.errors import RecipeError
from builders.video.family import VideoRecipe
from builders.video.pipeline import VideoPipeline

DEFAULT_STEPS = 50
"""Default number of denoising steps, unless the recipe sets one: that of diffusers' pipeline."""

DEFAULT_GUIDANCE = 5.0
"""Default guidance scale, unless the recipe sets one: that of diffusers' pipeline."""

DEFAULT_SIZE = (832, 480)
"""Default width and height, in pixels: those of diffusers' pipeline."""

SMALLEST_SIDE = 256
LARGEST_SIDE = 1280
"""Sides of a video between which a recipe without sizes accepts all."""

REFERENCES = {"none": ["frames"], "first-frame": ["image", "frames"], "channels": ["image"]}
"""The references that a pipeline takes, by its image conditioning."""


def default_guidance(recipe: VideoRecipe) -> float:
    """Return the guidance scale for requests that set none."""
    chosen = recipe.videos.default_guidance
    return DEFAULT_GUIDANCE if chosen is None else chosen


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
            "default_guidance": default_guidance(recipe),
            "default_num_frames": options.default_num_frames,
            "max_num_frames": options.most_frames,
            "frame_multiple": pipeline.temporal_factor,
            "default_fps": options.default_fps,
            "max_fps": options.max_fps,
            "max_rows": recipe.max_rows,
            "precision": recipe.precision,
        },
        decoupled=True,
    )


def size_options(recipe: VideoRecipe, pipeline: VideoPipeline) -> dict[str, Any]:
    """Return the parameters that name the model's sizes, in pixels. Raises RecipeError if one does not suit it."""
    multiple, positions = pipeline.size_multiple, int(pipeline.config("transformer").get("rope_max_seq_len", 1024))
    if 1 + (recipe.videos.most_frames - 1) // pipeline.temporal_factor > positions:
        raise RecipeError(f"This model has positions for {positions} latent frames; max_num_frames is more.")
    limit = min(MAX_SIDE, positions * pipeline.vae_scale_factor * pipeline.patch_size[1])
    least, most = (min(side, limit) // multiple * multiple for side in (SMALLEST_SIDE, LARGEST_SIDE))
    usual = min(DEFAULT_SIZE[0], limit) // multiple * multiple, min(DEFAULT_SIZE[1], limit) // multiple * multiple
    return choose_sizes(recipe.videos, multiple, limit, (least, most), usual)
