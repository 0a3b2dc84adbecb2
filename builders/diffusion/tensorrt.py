"""The target `tensorrt` of pipelines: the sizes that the plan of each part takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from builders import tensorrt_plan
from builders.diffusion.parts import Dimension, PipelinePart, concrete_size, example_inputs
from builders.diffusion.pipeline import Pipeline, num_t5_tokens
from builders.diffusion.triton_config import max_part_batch, size_options
from builders.progress import Progress
from builders.recipe import Precision, Recipe
from builders.tensorrt_plan import Profile, Shape


class PlanShapes(Protocol):
    """The shapes that the plans of a pipeline take."""

    def profile(self, part: PipelinePart) -> Profile:
        """Return the shapes of a part's inputs."""

    def examples(self, part: PipelinePart) -> Iterator[dict[str, Any]]:
        """Yield inputs to compare a part's plan with."""


@dataclass(frozen=True, slots=True)
class PlanSizes:
    """The smallest, usual and largest value of each dynamic size of a pipeline's plans."""

    batch: tuple[int, int, int]
    pixels: tuple[int, int, int]
    """Side of an image, in pixels."""
    vae_scale_factor: int
    patch_size: int
    num_tokens: int
    """Tokens that the text encoders return together, which is a fixed number."""

    def profile(self, part: PipelinePart) -> Profile:
        """Return the shapes of a part's inputs."""
        return {port.name: self._shapes(part, port.shape) for port in part.inputs}

    def _shapes(self, part: PipelinePart, dims: tuple[Dimension, ...]) -> tuple[Shape, Shape, Shape]:
        least, usual, most = (
            (batch, *(concrete_size(size, self._sizes(part, pixels)) for size in dims))
            for batch, pixels in zip(self.batch, self.pixels, strict=True)
        )
        return least, usual, most

    def _sizes(self, part: PipelinePart, pixels: int) -> dict[str, int]:
        side = pixels if part.kind == "vae-encoder" else pixels // self.vae_scale_factor
        patches = (pixels // (self.vae_scale_factor * self.patch_size)) ** 2
        return {"height": side, "width": side, "tokens": self.num_tokens, "patches": patches}

    def examples(self, part: PipelinePart) -> Iterator[dict[str, Any]]:
        """Yield inputs of the smallest size, with one row and with two."""
        sizes = self._sizes(part, self.pixels[0])
        sizes |= {name: sizes[name] // part.size_unit for name in ("height", "width")}
        for batch in (1, min(2, self.batch[2])):
            yield example_inputs(part, batch, sizes, seed=batch)


def plan_sizes(recipe: Recipe, pipeline: Pipeline) -> PlanSizes:
    """Return the sizes of a recipe's plans. Raises RecipeError if they do not suit the model."""
    options = size_options(recipe, pipeline)
    sides = sorted(side for size in options.get("sizes", ()) for side in size)
    least, most = (sides[0], sides[-1]) if sides else (options["min_size"], options["max_size"])
    tokens = pipeline.num_tokens(pipeline.text_encoders[0])
    if pipeline.family == "flux":
        tokens = num_t5_tokens(pipeline)
    elif pipeline.family == "stable-diffusion-3":
        tokens += num_t5_tokens(pipeline)
    usual = max(least, min(most, max(options["default_size"])))
    batch = max_part_batch(recipe)
    return PlanSizes(
        (1, min(2, batch), batch), (least, usual, most), pipeline.vae_scale_factor, pipeline.patch_size, tokens
    )


def build_plan(
    part: PipelinePart, onnx: Path, plan: Path, sizes: PlanShapes, precision: Precision, progress: Progress
) -> None:
    """Compile a part's ONNX file to `plan`, and compare the two. Raises ExportFailed, VerificationFailed."""
    progress.update(f"building the plan of {part.name}")
    tensorrt_plan.build(part.name, onnx, plan, sizes.profile(part))
    if not tensorrt_plan.has_python_package():
        progress.note(f"The plan of {part.name} was not compared: that needs the Python package tensorrt.")
    elif not tensorrt_plan.compare(part.name, onnx, plan, sizes.examples(part), precision):
        progress.note(f"The plan of {part.name} was not compared: this PyTorch does not know the GPU.")
