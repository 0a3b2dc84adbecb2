"""Render the `config.pbtxt` of an upscaling model, and of the model that holds its network where that is a plan."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders import config_pbtxt
from builders.config_pbtxt import FP32, TensorConfig
from builders.engine_targets import CUDA_OPTIONS, CUDA_PARAMETERS
from builders.errors import RecipeError
from builders.recipe import Recipe
from builders.tensorrt_plan import Profile
from builders.upscaling.family import UpscalingRecipe
from builders.upscaling.onnx_export import INPUT, OUTPUT

MAX_OVERLAP = 32
"""Default overlap of networks whose receptive field has a larger radius, in pixels."""
DEFAULT_TILE = 128
"""Side of a tile of a network of unknown architecture, in pixels."""
_SMALLEST_SIDE = 1


@dataclass(frozen=True, slots=True)
class Tiling:
    """The scale of a network, and the tiles of its pictures, in pixels."""

    scale: int
    tile: int
    overlap: int
    feather: int

    @property
    def scales(self) -> list[int]:
        """The scales that the model offers: the network's, and 2 by halving what it makes."""
        return sorted({self.scale} | ({2} if self.scale % 2 == 0 else set()))

    @property
    def window(self) -> int:
        """Side of the largest window."""
        return self.tile + 2 * self.overlap


def choose_tiling(recipe: UpscalingRecipe, scale: int, tile: int = DEFAULT_TILE, radius: int | None = None) -> Tiling:
    """Return the tiling of a network with a scale, a usual tile, and the radius of its receptive field, if known.

    Where the overlap is not as wide as the field, tiles pass into one another over half of the overlap. Raises
    RecipeError if the recipe's pictures are larger than any result may be.
    """
    tile = recipe.tile or tile
    overlap = min(radius or MAX_OVERLAP, MAX_OVERLAP) if recipe.overlap is None else recipe.overlap
    exact = radius is not None and overlap >= radius
    tiling = Tiling(scale, tile, overlap, 0 if exact else min(overlap // 2, tile // 4))
    least = tiling.scales[0] ** 2
    if recipe.max_output_pixels < least:
        raise RecipeError(f"max_output_pixels must be at least {least}, the result of one pixel.")
    return tiling


def network_name(recipe: Recipe) -> str:
    """Return the name of the Triton model that holds the network of a plan."""
    return f"{recipe.name}-network"


def render_model(recipe: UpscalingRecipe, tiling: Tiling) -> str:
    """Return the `config.pbtxt` of the upscaling model."""
    is_id = recipe.source.count("/") >= 2 and recipe.source[0] not in "./~"
    on_gpu, plan = recipe.device == "cuda", recipe.target == "tensorrt"
    parameters: dict[str, object] = {
        "served_name": recipe.served_name or recipe.name,
        "operations": ["upscale_image"],
        "signature": "upscaling",
        "scales": tiling.scales,
        "max_pixels": recipe.max_pixels,
        "max_output_pixels": recipe.max_output_pixels,
        "owned_by": recipe.owned_by or (recipe.source.split("/")[0] if is_id else "local"),
        "created": int(time.time()),
        "engine": "tensorrt" if plan else "onnxruntime",
        "precision": recipe.precision,
        "network_scale": tiling.scale,
        "tile": tiling.tile,
        "overlap": tiling.overlap,
        "feather": tiling.feather,
        "max_rows": recipe.max_rows,
        "max_waiting": recipe.max_waiting,
        "threads": recipe.threads,
    }
    if plan:
        parameters["network"] = network_name(recipe)
    elif on_gpu:
        parameters |= CUDA_PARAMETERS
    return config_pbtxt.render(
        recipe.name,
        "upscaling",
        config_pbtxt.UPSCALING_INPUTS,
        config_pbtxt.UPSCALING_OUTPUTS,
        parameters,
        decoupled=True,
        # The model runs the ONNX file itself. It only calls the model of a plan, which has a GPU of its own.
        instance_kind="KIND_GPU" if on_gpu and not plan else None,
        cuda_options=CUDA_OPTIONS if on_gpu and not plan else None,
    )


def render_network(recipe: UpscalingRecipe) -> str:
    """Return the `config.pbtxt` of the plan, whose batches the upscaling model makes."""
    picture = (3, -1, -1)
    return config_pbtxt.render(
        network_name(recipe),
        "tensorrt",
        (TensorConfig(INPUT, FP32, picture),),
        (TensorConfig(OUTPUT, FP32, picture),),
        {"component": recipe.name},
        decoupled=False,
        max_batch_size=recipe.max_rows,
        instance_kind="KIND_GPU",
        platform="tensorrt_plan",
    )


def plan_profile(recipe: UpscalingRecipe, tiling: Tiling) -> Profile:
    """Return the shapes of the plan's input, from one pixel to a batch of whole windows."""
    rows, side = recipe.max_rows, tiling.window
    return {INPUT: ((1, 3, _SMALLEST_SIDE, _SMALLEST_SIDE), (rows, 3, side, side), (rows, 3, side, side))}


def plan_examples(recipe: UpscalingRecipe) -> Iterator[dict[str, Any]]:
    """Yield pictures of noise: one, and a batch of another size."""
    generator = np.random.default_rng(0)
    for shape in ((1, 3, 24, 40), (min(2, recipe.max_rows), 3, 33, 16)):
        yield {INPUT: generator.random(shape, np.float32)}
