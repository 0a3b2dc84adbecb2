"""The target `tensorrt` of video pipelines: the sizes that the plan of each part takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from builders.diffusion.parts import Dimension, PipelinePart, concrete_size, example_inputs
from builders.diffusion.triton_config import max_part_batch
from builders.tensorrt_plan import Profile, Shape
from builders.video.family import VideoRecipe
from builders.video.pipeline import VideoPipeline
from builders.video.triton_config import length_options, size_options


@dataclass(frozen=True, slots=True)
class VideoPlanSizes:
    """The smallest, usual and largest value of each dynamic size of a pipeline's plans."""

    batch: tuple[int, int, int]
    height: tuple[int, int, int]
    """Latent cells."""
    width: tuple[int, int, int]
    frames: tuple[int, int, int]
    """Latent frames."""
    num_tokens: int

    def profile(self, part: PipelinePart) -> Profile:
        """Return the shapes of a part's inputs."""
        return {port.name: self._shapes(port.shape) for port in part.inputs}

    def _shapes(self, dims: tuple[Dimension, ...]) -> tuple[Shape, Shape, Shape]:
        least, usual, most = (
            (self.batch[which], *(concrete_size(size, self._sizes(which)) for size in dims)) for which in range(3)
        )
        return least, usual, most

    def _sizes(self, which: int) -> dict[str, int]:
        return {
            "height": self.height[which],
            "width": self.width[which],
            "frames": self.frames[which],
            "tokens": self.num_tokens,
        }

    def examples(self, part: PipelinePart) -> Iterator[dict[str, Any]]:
        """Yield inputs of the smallest size, with one row and with two."""
        sizes = self._sizes(0)
        sizes |= {name: sizes[name] // part.size_unit for name in ("height", "width")}
        for batch in (1, min(2, self.batch[2])):
            yield example_inputs(part, batch, sizes, seed=batch)


def plan_sizes(recipe: VideoRecipe, pipeline: VideoPipeline) -> VideoPlanSizes:
    """Return the sizes of a recipe's plans. Raises RecipeError if they do not suit the model.

    With the sizes `1280x720` and `720x1280`, plans take all widths and heights from 720 to 1280: a plan has one range
    for each dimension.
    """
    options, batch = size_options(recipe, pipeline), max_part_batch(recipe)
    lengths = length_options(recipe, pipeline)
    counts = (1, lengths["default_num_frames"], lengths["max_num_frames"])
    frames_one, frames_usual, frames_most = (1 + ceil((count - 1) / pipeline.temporal_factor) for count in counts)
    width, height = (_cells(options, axis, pipeline.vae_scale_factor) for axis in (0, 1))
    return VideoPlanSizes(
        (1, min(2, batch), batch), height, width, (frames_one, frames_usual, frames_most), pipeline.num_tokens
    )


def _cells(options: dict[str, Any], axis: int, factor: int) -> tuple[int, int, int]:
    """Return the smallest, usual and largest side along one axis, in latent cells."""
    sides = [size[axis] for size in options.get("sizes", ())] or [options["min_size"], options["max_size"]]
    least, most = min(sides), max(sides)
    return least // factor, max(least, min(most, options["default_size"][axis])) // factor, most // factor
