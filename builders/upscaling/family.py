"""The family `upscaling`: networks that enlarge pictures, which `backends/upscaling` serves."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from builders.engine_targets import Device, default_device
from builders.family import REVISION, Builder, Family, Option
from builders.recipe import Precision, Recipe

DEFAULT_RECIPE = "realesrgan-animevideov3"
GPU_ROWS = 4
"""Tiles of one run on a GPU, unless a recipe says otherwise."""


class UpscalingRecipe(Recipe):
    """A recipe of an upscaling model."""

    precision: Precision = "fp32"
    device: Device = "cpu"
    """Kind of device that serves the network. Default: `cpu` for the target `onnx`, `cuda` for `tensorrt`."""
    max_rows: Annotated[int, Field(ge=1, le=64)] = 1
    """Tiles of one run of the network."""
    max_waiting: Annotated[int, Field(ge=0)] = 64
    """Limit of the queue of waiting pictures."""
    tile: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Side of a tile, in pixels. Default: by architecture, 256 or 128."""
    overlap: Annotated[int, Field(ge=0, le=512)] | None = None
    """Pixels around a tile that the network sees too. Default: the radius of its receptive field, at most 32."""
    max_pixels: Annotated[int, Field(ge=1)] = 3840 * 2160
    """Most pixels of a picture."""
    max_output_pixels: Annotated[int, Field(ge=4)] = 7680 * 4320
    """Most pixels of an upscaled picture."""

    @model_validator(mode="before")
    @classmethod
    def _set_defaults_of_device(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        device = values.get("device", default_device(values.get("target", "onnx")))
        return {"device": device} | ({"max_rows": GPU_ROWS} if device == "cuda" else {}) | values


def _load_builder() -> Builder:
    from builders.upscaling.builder import UpscalingBuilder

    return UpscalingBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    return (
        f"It upscales by {' and '.join(map(str, figures['scales']))}; against its source: largest difference of a "
        f"colour {figures['difference_max']:.2g} of 1."
    )


FAMILY = Family(
    name="upscaling",
    command="upscaling",
    help="Build a model that upscales pictures (Real-ESRGAN: RRDBNet, SRVGGNetCompact, or ONNX), and verify it.",
    source_help=(
        "File of weights (.safetensors, .pth, .param of ncnn, .onnx), a folder with one, owner/name/file.pth of the "
        "Hugging Face hub, or packaged:NAME."
    ),
    options=(
        Option("precision", "fp32 (the default), or fp16 for CUDA."),
        Option("target", "What to compile for: onnx (the default) or tensorrt."),
        Option("device", "cpu or cuda. Default: cpu for onnx, cuda for tensorrt."),
        REVISION,
        Option("tile", "Side of a tile in pixels.", int),
        Option("overlap", "Pixels around a tile that the network sees too.", int),
        Option("max_pixels", "Most pixels of a picture.", int),
        Option("max_output_pixels", "Most pixels of an upscaled picture.", int),
        Option("max_rows", "Tiles of one run. Default: 1, on a GPU 4.", int),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_RECIPE,
    recipe=UpscalingRecipe,
)
