"""The family `diffusion`: pipelines of diffusers, served by `backends/diffusion` on engines that Triton batches."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from builders.engine_targets import Device, default_device
from builders.family import REVISION, Builder, Family, Option
from builders.recipe import DEFAULT_IMAGE_RECIPE, Precision, Recipe


class DiffusionRecipe(Recipe):
    """A recipe of a pipeline. Only for GPUs are weights compressed, to fp16."""

    precision: Precision = "fp32"
    device: Device = "cpu"
    """Kind of device that serves the parts. Default: `cpu` for the target `onnx`, `cuda` for `tensorrt`."""
    max_rows: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images that are generated side by side."""

    @model_validator(mode="before")
    @classmethod
    def _set_device_of_target(cls, values: Any) -> Any:
        return {"device": default_device(values.get("target", "onnx"))} | values if isinstance(values, dict) else values


def _load_builder() -> Builder:
    from builders.diffusion.builder import DiffusionBuilder

    return DiffusionBuilder()


def summarize_parts(figures: Mapping[str, Any]) -> str:
    """Return half a sentence on the parts of a pipeline; `figures` are those of its verification, by part."""
    differences = [
        max(figure["difference"], figure.get("fp16_difference", 0.0))
        for key, figure in figures.items()
        if key != "together"
    ]
    return f"{len(differences)} parts, each within {max(differences):.2g} of its source."


def pipeline_options(outputs: str) -> tuple[Option, ...]:
    """Return the options of `tritonic build` for a pipeline that generates `outputs`, such as "Images"."""
    return (
        Option("precision", "fp32 (the default); for CUDA also fp16."),
        Option("target", "What to compile for: onnx (the default) or tensorrt."),
        Option("device", "cpu or cuda. Default: cpu for onnx, cuda for tensorrt."),
        REVISION,
        Option("max_rows", f"{outputs} that are generated in one batch.", int),
    )


def _summary(figures: Mapping[str, Any]) -> str:
    together = figures["together"]
    return (
        f"Against diffusers: {together['pictures']} images of one seed in {together['steps']} steps, largest "
        f"difference of a pixel {together['pixel_difference']:.2g} of 1; {summarize_parts(figures)}"
    )


FAMILY = Family(
    name="diffusion",
    command="image",
    help="Build an image model from a diffusers pipeline: its parts become models, and all are installed together.",
    source_help="Hugging Face id, local diffusers folder, or packaged:shapes. Default: packaged:shapes.",
    options=pipeline_options("Images"),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_IMAGE_RECIPE,
    recipe=DiffusionRecipe,
    own_fields=frozenset({"pictures"}),
)
