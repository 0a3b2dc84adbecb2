"""The family `face_swap`: models that put the face of one picture into another, served by `backends/face_swap`."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from builders.engine_targets import Device
from builders.family import Builder, Family, Option
from builders.recipe import Precision, Recipe

DEFAULT_FACE_SWAP_RECIPE = "face-swap"
"""Recipe that `tritonic build face-swap` builds by default."""


class FaceSwapRecipe(Recipe):
    """A recipe of a model that swaps faces."""

    precision: Precision = "fp32"
    device: Device = "cpu"
    """Kind of device that runs the networks."""
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 16
    """Faces of one picture that are swapped, the largest of them."""
    max_pixels: Annotated[int, Field(ge=1, le=50_000_000)] = 25_000_000
    """Most pixels of each picture."""
    max_waiting: Annotated[int, Field(ge=0)] = 64


def _load_builder() -> Builder:
    from builders.face_swap.builder import FaceSwapBuilder

    return FaceSwapBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    how = "by a network, which was run once" if figures["is_neural"] else "by warping"
    return (
        f"Faces are swapped {how}. Against their sources: largest difference of an output of the networks "
        f"{figures['difference_max']:.2g}."
    )


FAMILY = Family(
    name="face_swap",
    command="face-swap",
    help="Build a model that swaps faces, and verify its networks against PyTorch.",
    source_help="packaged:face-swap (the default), or a folder with embedding.onnx, swapper.onnx and emap.npy.",
    options=(
        Option("device", "cpu (the default) or cuda."),
        Option("max_faces", "Faces of one picture that are swapped. Default: 16.", int),
        Option("max_pixels", "Most pixels of each picture. Default: 25000000.", int),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_FACE_SWAP_RECIPE,
    recipe=FaceSwapRecipe,
)
