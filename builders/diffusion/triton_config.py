"""The `config.pbtxt` of a pipeline and of each of its parts."""

import time
from typing import Any

from builders import config_pbtxt
from builders.config_pbtxt import FP32, INT64, TensorConfig
from builders.diffusion.parts import PipelinePart, TensorSpec
from builders.diffusion.pipeline import Pipeline, PipelineFamily
from builders.errors import RecipeError
from builders.recipe import Recipe

DEFAULT_STEPS: dict[PipelineFamily, int] = {
    "stable-diffusion": 30,
    "stable-diffusion-xl": 30,
    "stable-diffusion-3": 28,
    "flux": 28,
}
"""Steps of a picture where neither the recipe nor the caller says."""

DEFAULT_GUIDANCE: dict[PipelineFamily, float] = {
    "stable-diffusion": 7.5,
    "stable-diffusion-xl": 5.0,
    "stable-diffusion-3": 7.0,
    "flux": 3.5,
}
"""The same of the guidance: what diffusers' pipelines take."""

MAX_SIDE = 4096
"""Pixels; no published model is made for more."""


def default_guidance(recipe: Recipe, pipeline: Pipeline) -> float:
    """How far a picture is held to its prompt where the caller does not say; 0 where the model has no say in it."""
    if recipe.pictures.default_guidance is not None:
        return recipe.pictures.default_guidance
    return 0.0 if pipeline.guidance == "none" else DEFAULT_GUIDANCE[pipeline.family]


def render_part(recipe: Recipe, name: str, part: PipelinePart, *, backend: str = "onnxruntime") -> str:
    """Render the `config.pbtxt` of a part, which Triton batches."""
    return config_pbtxt.render(
        name,
        backend,
        tuple(_tensor(port) for port in part.inputs),
        tuple(_tensor(port) for port in part.outputs),
        {"component": recipe.name, "intra_op_thread_count": str(recipe.threads) if recipe.threads else None},
        decoupled=False,
        max_batch_size=max_part_batch(recipe),
    )


def max_part_batch(recipe: Recipe) -> int:
    """Rows that a part takes at once: guidance doubles those of the pipeline."""
    return max(16, 2 * recipe.max_rows)


def _tensor(port: TensorSpec) -> TensorConfig:
    dims = tuple(size if isinstance(size, int) else -1 for size in port.shape)
    kind = INT64 if port.type == "INT64" else FP32
    # Triton wants a dimension besides the batch, and takes it away again before the engine sees the tensor.
    return TensorConfig(port.name, kind, dims) if dims else TensorConfig(port.name, kind, (1,), reshape=())


def render_pipeline(recipe: Recipe, pipeline: Pipeline) -> str:
    """Render the `config.pbtxt` of the pipeline itself. Raises RecipeError where sizes do not suit the model."""
    owner = recipe.source.split("/")[0] if recipe.source.count("/") == 1 and recipe.source[0] not in "./~" else "local"
    pictures = recipe.pictures
    return config_pbtxt.render(
        recipe.name,
        "diffusion",
        config_pbtxt.IMAGE_INPUTS,
        config_pbtxt.IMAGE_OUTPUTS,
        {
            "served_name": recipe.served_name or recipe.name,
            "operations": ["generate_image", "edit_image"],
            "signature": "image",
            "modalities": ["text", "image"],
            "owned_by": recipe.owned_by or owner,
            "created": int(time.time()),
            **size_options(recipe, pipeline),
            "default_steps": pictures.default_steps or DEFAULT_STEPS[pipeline.family],
            "max_steps": max(pictures.max_steps, pictures.default_steps or 0),
            "default_guidance": default_guidance(recipe, pipeline),
            "max_images": pictures.max_images,
            "max_rows": recipe.max_rows,
            "precision": recipe.precision,
        },
        decoupled=True,
    )


def size_options(recipe: Recipe, pipeline: Pipeline) -> dict[str, Any]:
    """Say what sizes the model draws: those of the recipe, or all multiples from half its own to twice it.

    Raises RecipeError.
    """
    pictures, multiple, native = recipe.pictures, pipeline.size_multiple, pipeline.native_size
    most = _position_limit(pipeline)
    asked = [*(pictures.sizes or ()), *([pictures.default_size] if pictures.default_size else [])]
    for size in asked:
        if any(side % multiple or side > most for side in size):
            raise RecipeError(
                f"The size {size[0]}x{size[1]} does not suit this model: width and height are multiples of {multiple} "
                f"up to {most}."
            )
    if pictures.max_size is not None and pictures.max_size > most:
        raise RecipeError(f"max_size {pictures.max_size} is more than this model has positions for: {most}.")
    if pictures.sizes:
        default = pictures.default_size or pictures.sizes[0]
        if default not in pictures.sizes:
            raise RecipeError(f"default_size {default[0]}x{default[1]} is not one of the sizes.")
        return {"sizes": pictures.sizes, "default_size": default, "size_multiple": multiple}
    least = max(multiple, native // 2 // multiple * multiple)
    return {
        "size_multiple": multiple,
        "min_size": pictures.min_size or least,
        "max_size": pictures.max_size or min(2 * native, most),
        "default_size": pictures.default_size or (native, native),
    }


def _position_limit(pipeline: Pipeline) -> int:
    """The longest side that the denoiser has positions for."""
    if pipeline.family != "stable-diffusion-3":
        return MAX_SIDE
    return int(pipeline.config("transformer")["pos_embed_max_size"]) * pipeline.vae_scale_factor * pipeline.patch_size
