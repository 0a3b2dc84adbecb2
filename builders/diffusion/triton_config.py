"""Render the `config.pbtxt` of a pipeline and of each of its parts."""

import time
from typing import Any

from builders import config_pbtxt
from builders.config_pbtxt import FP32, INT64, TensorConfig
from builders.diffusion.family import DiffusionRecipe
from builders.diffusion.parts import PipelinePart, TensorSpec
from builders.diffusion.pipeline import Pipeline, PipelineFamily
from builders.engine_targets import CUDA_OPTIONS, CUDA_PARAMETERS
from builders.errors import RecipeError
from builders.recipe import Recipe, SizeOptions

DEFAULT_STEPS: dict[PipelineFamily, int] = {
    "stable-diffusion": 30,
    "stable-diffusion-xl": 30,
    "stable-diffusion-3": 28,
    "flux": 28,
}
"""Default number of denoising steps, unless the recipe sets one."""

DEFAULT_GUIDANCE: dict[PipelineFamily, float] = {
    "stable-diffusion": 7.5,
    "stable-diffusion-xl": 5.0,
    "stable-diffusion-3": 7.0,
    "flux": 3.5,
}
"""Default guidance scale, unless the recipe sets one: those of diffusers' pipelines."""

MAX_SIDE = 4096
"""Largest side of an image, in pixels; no published model is made for more."""


def default_guidance(recipe: Recipe, pipeline: Pipeline) -> float:
    """Return the guidance scale for requests that set none; 0 for a model without guidance."""
    if recipe.pictures.default_guidance is not None:
        return recipe.pictures.default_guidance
    return 0.0 if pipeline.guidance == "none" else DEFAULT_GUIDANCE[pipeline.family]


def render_part(recipe: DiffusionRecipe, name: str, part: PipelinePart) -> str:
    """Return the `config.pbtxt` of a part, which Triton batches."""
    on_gpu, plan = recipe.device == "cuda", recipe.target == "tensorrt"
    parameters: dict[str, object] = {"component": recipe.name}
    if not on_gpu and recipe.threads:
        parameters["intra_op_thread_count"] = str(recipe.threads)
    if on_gpu and not plan:
        parameters |= CUDA_PARAMETERS
    return config_pbtxt.render(
        name,
        "tensorrt" if plan else "onnxruntime",
        tuple(_tensor(port) for port in part.inputs),
        tuple(_tensor(port) for port in part.outputs),
        parameters,
        decoupled=False,
        max_batch_size=max_part_batch(recipe),
        instance_kind="KIND_GPU" if on_gpu else None,
        platform="tensorrt_plan" if plan else "",
        cuda_options=CUDA_OPTIONS if on_gpu and not plan else None,
    )


def max_part_batch(recipe: Recipe) -> int:
    """Return the largest batch of a part, in rows: guidance doubles the rows of the pipeline."""
    return max(16, 2 * recipe.max_rows)


def _tensor(port: TensorSpec) -> TensorConfig:
    dims = tuple(size if isinstance(size, int) else -1 for size in port.shape)
    kind = INT64 if port.type == "INT64" else FP32
    # Triton requires a dimension besides the batch; `reshape` removes it before the engine gets the tensor.
    return TensorConfig(port.name, kind, dims) if dims else TensorConfig(port.name, kind, (1,), reshape=())


def render_pipeline(recipe: Recipe, pipeline: Pipeline) -> str:
    """Return the `config.pbtxt` of the pipeline model. Raises RecipeError if its sizes do not suit the model."""
    options = recipe.pictures
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
            "owned_by": owner(recipe),
            "created": int(time.time()),
            **size_options(recipe, pipeline),
            "default_steps": options.default_steps or DEFAULT_STEPS[pipeline.family],
            "max_steps": max(options.max_steps, options.default_steps or 0),
            "default_guidance": default_guidance(recipe, pipeline),
            "max_images": options.max_images,
            "max_rows": recipe.max_rows,
            "precision": recipe.precision,
        },
        decoupled=True,
    )


def owner(recipe: Recipe) -> str:
    """Return the owner that clients see: the recipe's, or that of a Hugging Face id."""
    is_id = recipe.source.count("/") == 1 and recipe.source[0] not in "./~"
    return recipe.owned_by or (recipe.source.split("/")[0] if is_id else "local")


def size_options(recipe: Recipe, pipeline: Pipeline) -> dict[str, Any]:
    """Return the parameters that name the model's image sizes: the recipe's, or from half to twice the native size.

    Raises RecipeError if a size of the recipe does not suit the model.
    """
    multiple, native, limit = pipeline.size_multiple, pipeline.native_size, _position_limit(pipeline)
    smallest = max(multiple, native // 2 // multiple * multiple)
    return choose_sizes(recipe.pictures, multiple, limit, (smallest, min(2 * native, limit)), (native, native))


def choose_sizes(
    options: SizeOptions, multiple: int, limit: int, between: tuple[int, int], usual: tuple[int, int]
) -> dict[str, Any]:
    """Return the parameters that name a model's sizes, in pixels. Raises RecipeError if a size does not suit the model.

    Sides are multiples of `multiple` up to `limit`. A recipe that names no sizes gets all of them `between` two sides,
    and `usual` as the default.
    """
    chosen = [*(options.sizes or ()), *([options.default_size] if options.default_size else [])]
    for size in chosen:
        if any(side % multiple or side > limit for side in size):
            raise RecipeError(
                f"The size {size[0]}x{size[1]} does not suit this model: width and height are multiples of {multiple} "
                f"up to {limit}."
            )
    if options.max_size is not None and options.max_size > limit:
        raise RecipeError(f"max_size {options.max_size} is more than this model has positions for: {limit}.")
    if options.sizes:
        default = options.default_size or options.sizes[0]
        if default not in options.sizes:
            raise RecipeError(f"default_size {default[0]}x{default[1]} is not one of the sizes.")
        return {"sizes": options.sizes, "default_size": default, "size_multiple": multiple}
    return {
        "size_multiple": multiple,
        "min_size": options.min_size or between[0],
        "max_size": options.max_size or between[1],
        "default_size": options.default_size or usual,
    }


def _position_limit(pipeline: Pipeline) -> int:
    """Return the largest side, in pixels, for which the denoiser has positions."""
    if pipeline.family != "stable-diffusion-3":
        return MAX_SIDE
    return int(pipeline.config("transformer")["pos_embed_max_size"]) * pipeline.vae_scale_factor * pipeline.patch_size
