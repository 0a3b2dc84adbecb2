"""The `parameters` of `config.pbtxt` that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from backends.serving.config_parameters import integer_value, json_value, string_values
from backends.serving.errors import InvalidValue

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a model, as docs/architecture.md describes them.

    If `sizes` are given, the model draws only these; otherwise sides are multiples of `size_multiple` within
    `min_size` and `max_size`. All sizes are in pixels. `max_waiting` bounds the unanswered images or videos, and
    `max_waiting_bytes` the inputs that wait for preprocessing.
    """

    outputs: ClassVar[str] = "images"
    """Plural of what the model generates, for messages."""

    sizes: tuple[Size, ...] = ()
    size_multiple: int = 8
    min_size: Size = (8, 8)
    max_size: Size = (2048, 2048)
    default_size: Size = (512, 512)
    default_steps: int = 25
    max_steps: int = 150
    default_guidance: float = 1.0
    max_images: int = 10
    max_rows: int = 8
    max_waiting: int = 256
    max_waiting_bytes: int = 256 * 2**20

    def check_size(self, size: Size) -> None:
        """Raise `InvalidValue`, naming the sizes that the model supports, for one that it does not."""
        if self.sizes:
            is_supported = size in self.sizes
            supported = ", ".join(f"{width}x{height}" for width, height in self.sizes)
        else:
            is_supported = all(
                side % self.size_multiple == 0 and low <= side <= high
                for side, low, high in zip(size, self.min_size, self.max_size, strict=True)
            )
            (min_width, min_height), (max_width, max_height) = self.min_size, self.max_size
            bounds = f"from {min_width}x{min_height} to {max_width}x{max_height}"
            supported = f"sides that are multiples of {self.size_multiple}, {bounds}"
        if not is_supported:
            raise InvalidValue(
                f"This model does not generate {self.outputs} of {size[0]}x{size[1]}; it supports {supported}.", "width"
            )

    def nearest_size(self, size: Size) -> Size:
        """Return the supported size nearest to an image's: by aspect ratio, then by area."""
        width, height = size
        if self.sizes:
            return min(
                self.sizes,
                key=lambda supported: (
                    round(abs(_ratio(supported[0] * height, supported[1] * width)), 2),
                    abs(_ratio(supported[0] * supported[1], width * height)),
                ),
            )
        # Scale both sides alike until they lie within the bounds, then round each to a multiple.
        scale = min(1.0, *(high / side for side, high in zip(size, self.max_size, strict=True)))
        scale = max(scale, *(low / side for side, low in zip(size, self.min_size, strict=True)))
        sides = []
        for side, low, high in zip(size, self.min_size, self.max_size, strict=True):
            rounded = round(side * scale / self.size_multiple) * self.size_multiple
            sides.append(min(max(rounded, low), high))
        return sides[0], sides[1]


def _ratio(a: float, b: float) -> float:
    """Return the relative difference of two positive numbers: 0 if they are equal."""
    return max(a, b) / min(a, b) - 1


def read_options(parameters: Mapping[str, Mapping[str, Any]], size_multiple: int) -> Options:
    """Read `parameters` as Triton passes them: `{"max_rows": {"string_value": "8"}}`.

    `size_multiple` is the pipeline's, in pixels. Ignores parameters that others read. Raises `ValueError` with a
    sentence that names the parameter.
    """
    values = string_values(parameters)
    default = Options()
    multiple = integer_value(values, "size_multiple", size_multiple)
    options = Options(
        sizes=_sizes(values),
        size_multiple=multiple,
        min_size=_size(values, "min_size", (multiple, multiple)),
        max_size=_size(values, "max_size", (max(2048, multiple),) * 2),
        default_size=_size(values, "default_size", default.default_size),
        default_steps=integer_value(values, "default_steps", default.default_steps),
        max_steps=integer_value(values, "max_steps", default.max_steps),
        default_guidance=_number(values, "default_guidance", default.default_guidance),
        max_images=integer_value(values, "max_images", default.max_images),
        max_rows=integer_value(values, "max_rows", default.max_rows),
        max_waiting=integer_value(values, "max_waiting", default.max_waiting, low=0),
        max_waiting_bytes=integer_value(values, "max_waiting_bytes", default.max_waiting_bytes, low=0),
    )
    try:
        options.check_size(options.default_size)
    except InvalidValue as error:
        raise ValueError(f"The parameter default_size does not fit: {error.message}") from None
    wrong = [size for size in options.sizes if any(side % size_multiple for side in size)]
    if wrong or multiple % size_multiple:
        raise ValueError(f"Sides must be multiples of {size_multiple}; {wrong or multiple} are not.")
    return options


def _sizes(values: Mapping[str, str]) -> tuple[Size, ...]:
    found = json_value(values, "sizes", [])
    if not isinstance(found, list):
        raise ValueError(f"The parameter sizes is {found!r}; it must be a list of sizes.")
    return tuple(_pair("sizes", size) for size in found)


def _size(values: Mapping[str, str], name: str, default: Size) -> Size:
    found = json_value(values, name, None)
    return default if found is None else _pair(name, found)


def _pair(name: str, value: object) -> Size:
    """Return a width and a height; a single number means both."""
    sides: list[Any] = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"The parameter {name} holds {value!r}; it must be a width and a height in pixels.")
    return sides[0], sides[1]


def _number(values: Mapping[str, str], name: str, default: float) -> float:
    value = json_value(values, name, default)
    if type(value) not in (int, float) or not 0 <= value < 1e6:
        raise ValueError(f"The parameter {name} is {value!r}; it must be a number from 0 on.")
    return float(value)
