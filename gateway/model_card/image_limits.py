"""The images that a model can generate: sizes, steps and their number."""

from dataclasses import dataclass
from math import log
from typing import TypeAlias

from gateway.operations.generate_image import Effort

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

DEFAULT_MAX_IMAGES = 10
"""Images of one request, where the model does not say how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """The images that a model can generate.

    The supported sizes are `sizes`, in pixels. If that is empty, they are all sizes whose sides are multiples of
    `size_multiple`, from `min_size` to `max_size`. If a model declares nothing, it gets every request and refuses sizes
    itself.
    """

    sizes: tuple[Size, ...] = ()
    size_multiple: int = 1
    min_size: Size | None = None
    max_size: Size | None = None
    default_size: Size | None = None
    default_steps: int | None = None
    max_steps: int | None = None
    max_images: int = DEFAULT_MAX_IMAGES

    def supports_size(self, width: int, height: int) -> bool:
        """Return whether the model generates images of this size."""
        if self.sizes:
            return (width, height) in self.sizes
        return all(
            side % self.size_multiple == 0
            and (self.min_size is None or side >= self.min_size[at])
            and (self.max_size is None or side <= self.max_size[at])
            for at, side in enumerate((width, height))
        )

    def nearest_size(self, width: int, height: int) -> Size:
        """Return the supported size whose aspect ratio, and then whose area, is closest to this one."""
        if self.sizes:
            return min(self.sizes, key=lambda size: _size_distance(size, (width, height)))
        least, most = self.min_size or (1, 1), self.max_size or (width, height)
        return self._side(width, least[0], most[0]), self._side(height, least[1], most[1])

    def _side(self, side: int, least: int, most: int) -> int:
        side = max(least, min(side, most)) // self.size_multiple * self.size_multiple
        return side if side >= least else side + self.size_multiple

    def steps(self, effort: Effort) -> int | None:
        """Return the denoising steps of an effort; None is the model's own number."""
        if self.default_steps is None or effort == "medium":
            return None
        steps = max(1, self.default_steps // 2) if effort == "low" else 2 * self.default_steps
        return min(steps, self.max_steps or steps)

    def describe_sizes(self) -> str:
        """Return the supported sizes in words, for an error message."""
        if self.sizes:
            return ", ".join(format_size(size) for size in self.sizes)
        bounds = [
            f"{word} {format_size(size)}" for word, size in (("from", self.min_size), ("up to", self.max_size)) if size
        ]
        multiples = [f"sides that are multiples of {self.size_multiple}"] if self.size_multiple > 1 else []
        return " ".join(bounds) + ("; " if bounds and multiples else "") + "".join(multiples) or "any size"


def format_size(size: Size) -> str:
    """Return `WIDTHxHEIGHT`, the form in which callers write a size."""
    return f"{size[0]}x{size[1]}"


def _size_distance(size: Size, other: Size) -> tuple[float, float]:
    """Return the distance of two sizes: in aspect ratio, and in area."""
    shape = abs(log(size[0] * other[1] / (size[1] * other[0])))
    return round(shape, 6), abs(log(size[0] * size[1] / (other[0] * other[1])))
