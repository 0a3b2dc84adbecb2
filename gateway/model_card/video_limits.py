"""The lengths, frame rates and references of a video model, by the parameters of its `config.pbtxt`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

DEFAULT_MAX_FPS = 60
"""Most frames a second, where the model does not say how many."""
_REFERENCES = frozenset({"image", "frames"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """The videos that a model can generate. Their sizes and steps are those of `ModelCard.image`."""

    default_num_frames: int = 1
    max_num_frames: int = 1
    default_fps: int = 1
    """Frames a second of a video whose request names none."""
    max_fps: int = DEFAULT_MAX_FPS
    references: frozenset[str] = frozenset()
    """The references that a video may start from: `image`, its first frame; `frames`, another video."""
    requires_image: bool = False
    """Whether the model generates no video without a first frame."""

    def num_frames(self, seconds: float, fps: int) -> int:
        """Return the number of frames that last `seconds` at `fps` frames a second, to the nearest; at least 1."""
        return max(1, floor(seconds * fps + 0.5))

    def seconds(self, num_frames: int, fps: int) -> float:
        """Return how long `num_frames` frames last at `fps` frames a second, in seconds."""
        return num_frames / fps


def parse_video(parameters: Mapping[str, str]) -> VideoLimits:
    """Parse the parameters of generated videos.

    Raises `KeyError` if `default_num_frames`, `default_fps` or `default_size` is missing, and `ValueError` or
    `TypeError` for an invalid value.
    """
    parameters["default_size"]  # the answer to a request without a size tells it
    references = json.loads(parameters.get("references", "[]"))
    if not isinstance(references, list) or not _REFERENCES.issuperset(references):
        raise ValueError(f"references is {references!r}; expected a list of {sorted(_REFERENCES)}")
    default = _positive(parameters, "default_num_frames", None)
    limits = VideoLimits(
        default_num_frames=default,
        max_num_frames=_positive(parameters, "max_num_frames", default),
        default_fps=_positive(parameters, "default_fps", None),
        max_fps=_positive(parameters, "max_fps", DEFAULT_MAX_FPS),
        references=frozenset(references),
        requires_image=_flag(parameters, "requires_image"),
    )
    if limits.requires_image and "image" not in limits.references:
        raise ValueError("requires_image is true, but references has no image")
    if default > limits.max_num_frames:
        raise ValueError(f"default_num_frames {default} is not a supported number of frames")
    return limits


def _positive(parameters: Mapping[str, str], name: str, default: int | None) -> int:
    value = parameters[name] if default is None else parameters.get(name, str(default))
    if not value.isdigit() or not int(value):
        raise ValueError(f"{name} is {value!r}; expected a positive integer")
    return int(value)


def _flag(parameters: Mapping[str, str], name: str) -> bool:
    value = parameters.get(name, "false")
    if value not in ("true", "false"):
        raise ValueError(f"{name} is {value!r}; expected true or false")
    return value == "true"
