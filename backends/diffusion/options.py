"""The `parameters` of config.pbtxt that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.config_parameters import integer_value, json_value, string_values
from backends.serving.errors import InvalidValue

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What docs/architecture.md describes. Either `sizes` are all there are, or sides are multiples within bounds."""

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
        """Raise `InvalidValue` for a size that the model is not meant for, naming those that it is."""
        if self.sizes:
            fits, told = size in self.sizes, ", ".join(f"{width}x{height}" for width, height in self.sizes)
        else:
            fits = all(
                side % self.size_multiple == 0 and least <= side <= most
                for side, least, most in zip(size, self.min_size, self.max_size, strict=True)
            )
            (left, top), (right, bottom) = self.min_size, self.max_size
            told = f"sides that are multiples of {self.size_multiple}, from {left}x{top} to {right}x{bottom}"
        if not fits:
            raise InvalidValue(f"This model does not draw {size[0]}x{size[1]}; it draws {told}.", "width")

    def nearest_size(self, size: Size) -> Size:
        """The size of the model's that a picture of any size is brought to: the likest in shape, then in area."""
        width, height = size
        if self.sizes:
            return min(
                self.sizes,
                key=lambda each: (
                    round(abs(_ratio(each[0] * height, each[1] * width)), 2),
                    abs(_ratio(each[0] * each[1], width * height)),
                ),
            )
        # Shrunk or grown as a whole until it lies within the bounds, then to the next multiples.
        scale = min(1.0, *(most / side for side, most in zip(size, self.max_size, strict=True)))
        scale = max(scale, *(least / side for side, least in zip(size, self.min_size, strict=True)))
        sides = []
        for side, least, most in zip(size, self.min_size, self.max_size, strict=True):
            near = round(side * scale / self.size_multiple) * self.size_multiple
            sides.append(min(max(near, least), most))
        return sides[0], sides[1]


def _ratio(one: float, other: float) -> float:
    """How far apart two numbers are: 0 where they are equal."""
    return max(one, other) / min(one, other) - 1


def read_options(parameters: Mapping[str, Mapping[str, Any]], size_multiple: int) -> Options:
    """Read `parameters` as Triton hands them over: `{"max_rows": {"string_value": "8"}}`.

    `size_multiple` is what the pipeline says of itself. Raises `ValueError` with a sentence that names the parameter.
    Parameters that others read are left alone.
    """
    values = string_values(parameters)
    usual = Options()
    multiple = integer_value(values, "size_multiple", size_multiple)
    options = Options(
        sizes=_sizes(values),
        size_multiple=multiple,
        min_size=_size(values, "min_size", (multiple, multiple)),
        max_size=_size(values, "max_size", (max(2048, multiple),) * 2),
        default_size=_size(values, "default_size", usual.default_size),
        default_steps=integer_value(values, "default_steps", usual.default_steps),
        max_steps=integer_value(values, "max_steps", usual.max_steps),
        default_guidance=_number(values, "default_guidance", usual.default_guidance),
        max_images=integer_value(values, "max_images", usual.max_images),
        max_rows=integer_value(values, "max_rows", usual.max_rows),
        max_waiting=integer_value(values, "max_waiting", usual.max_waiting, low=0),
        max_waiting_bytes=integer_value(values, "max_waiting_bytes", usual.max_waiting_bytes, low=0),
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


def _size(values: Mapping[str, str], name: str, usual: Size) -> Size:
    found = json_value(values, name, None)
    return usual if found is None else _pair(name, found)


def _pair(name: str, value: object) -> Size:
    """A size; one number stands for both sides."""
    sides: list[Any] = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"The parameter {name} holds {value!r}; it must be a width and a height in pixels.")
    return sides[0], sides[1]


def _number(values: Mapping[str, str], name: str, usual: float) -> float:
    value = json_value(values, name, usual)
    if type(value) not in (int, float) or not 0 <= value < 1e6:
        raise ValueError(f"The parameter {name} is {value!r}; it must be a number from 0 on.")
    return float(value)
