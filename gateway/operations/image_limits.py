"""What a model that draws can do, as its parameters tell (docs/architecture.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any, Self

from gateway.operations.generate_image import Effort

_DEFAULT_MAX_IMAGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Sizes are (width, height) in pixels.

    `sizes` are all that there are, or else every side that is a multiple of `multiple` and lies within `least` and
    `most`. A model that says nothing of sizes is asked for any, and refuses by itself.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    size_multiple: int = 1
    min_size: tuple[int, int] | None = None
    max_size: tuple[int, int] | None = None
    default_size: tuple[int, int] | None = None
    default_steps: int | None = None
    max_steps: int | None = None
    max_images: int = _DEFAULT_MAX_IMAGES

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read a model's parameters. Raises `ValueError` where they are not as documented."""
        said = {name: json.loads(parameters[name]) for name in _PARAMETERS if name in parameters}
        drawing = cls(
            sizes=tuple(_size(size) for size in said.get("sizes", ())),
            size_multiple=_positive(said.get("size_multiple", 1)),
            min_size=_size(said["min_size"]) if "min_size" in said else None,
            max_size=_size(said["max_size"]) if "max_size" in said else None,
            default_size=_size(said["default_size"]) if "default_size" in said else None,
            default_steps=_positive(said["default_steps"]) if "default_steps" in said else None,
            max_steps=_positive(said["max_steps"]) if "max_steps" in said else None,
            max_images=_positive(said.get("max_images", _DEFAULT_MAX_IMAGES)),
        )
        if drawing.default_size and not drawing.supports_size(*drawing.default_size):
            raise ValueError(f"default_size {drawing.default_size} is none of the sizes that it can draw")
        return drawing

    def supports_size(self, width: int, height: int) -> bool:
        """Whether it draws pictures of this size."""
        if self.sizes:
            return (width, height) in self.sizes
        return all(
            side % self.size_multiple == 0
            and (self.min_size is None or side >= self.min_size[at])
            and (self.max_size is None or side <= self.max_size[at])
            for at, side in enumerate((width, height))
        )

    def nearest_size(self, width: int, height: int) -> tuple[int, int]:
        """The size that it draws whose shape, and then whose area, is most like this one."""
        if self.sizes:
            return min(self.sizes, key=lambda size: _size_distance(size, (width, height)))
        least, most = self.min_size or (1, 1), self.max_size or (width, height)
        return self._side(width, least[0], most[0]), self._side(height, least[1], most[1])

    def _side(self, side: int, least: int, most: int) -> int:
        side = max(least, min(side, most)) // self.size_multiple * self.size_multiple
        return side if side >= least else side + self.size_multiple

    def steps(self, effort: Effort) -> int | None:
        """The steps that an effort takes; None is the model's own number."""
        if self.default_steps is None or effort == "medium":
            return None
        steps = max(1, self.default_steps // 2) if effort == "low" else 2 * self.default_steps
        return min(steps, self.max_steps or steps)

    def describe_sizes(self) -> str:
        """The sizes in words, as in "it draws …"."""
        if self.sizes:
            return ", ".join(format_size(size) for size in self.sizes)
        bounds = [
            f"{word} {format_size(size)}" for word, size in (("from", self.min_size), ("up to", self.max_size)) if size
        ]
        multiples = [f"sides that are multiples of {self.size_multiple}"] if self.size_multiple > 1 else []
        return " ".join(bounds) + ("; " if bounds and multiples else "") + "".join(multiples) or "any size"


def format_size(size: tuple[int, int]) -> str:
    """`WIDTHxHEIGHT`, as callers write it."""
    return f"{size[0]}x{size[1]}"


_PARAMETERS = (
    *("sizes", "size_multiple", "min_size", "max_size", "default_size"),
    *("default_steps", "max_steps", "max_images"),
)


def _size_distance(size: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
    """How unlike two sizes are: in shape, and in area."""
    shape = abs(log(size[0] * other[1] / (size[1] * other[0])))
    return round(shape, 6), abs(log(size[0] * size[1] / (other[0] * other[1])))


def _size(value: Any) -> tuple[int, int]:
    """A size; one number stands for both sides."""
    width, height = value if isinstance(value, list) else (value, value)
    return _positive(width), _positive(height)


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no number above 0")
    return value
