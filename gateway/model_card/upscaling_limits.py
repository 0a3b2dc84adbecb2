"""The pictures that an upscaling model takes, by the parameters of its `config.pbtxt`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_SCALES = (2, 4)
"""Scales of a model that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalingLimits:
    """The scales and the sizes that a model takes. A limit of None is the model's own to check."""

    scales: tuple[int, ...] = DEFAULT_SCALES
    max_pixels: int | None = None
    """Most pixels of a picture that is sent."""
    max_output_pixels: int | None = None
    """Most pixels of the picture that is made of it."""

    def max_pixels_at(self, scale: int) -> int | None:
        """Return the most pixels of a picture that is upscaled by `scale`; None: the model does not say."""
        limits = [self.max_pixels, self.max_output_pixels and self.max_output_pixels // scale**2]
        return min((limit for limit in limits if limit is not None), default=None)


def parse_upscaling(parameters: Mapping[str, str]) -> UpscalingLimits:
    """Parse the parameters of an upscaling model. Raises `ValueError` for an invalid value."""
    scales = json.loads(parameters.get("scales", json.dumps(DEFAULT_SCALES)))
    if not isinstance(scales, list) or not scales or not all(type(scale) is int and scale > 1 for scale in scales):
        raise ValueError(f"scales is {scales!r}; expected a list of integers from 2 on")
    return UpscalingLimits(
        scales=tuple(sorted(set(scales))),
        max_pixels=_positive(parameters, "max_pixels"),
        max_output_pixels=_positive(parameters, "max_output_pixels"),
    )


def _positive(parameters: Mapping[str, str], name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if not value.isdigit() or not int(value):
        raise ValueError(f"{name} is {value!r}; expected a positive integer")
    return int(value)
