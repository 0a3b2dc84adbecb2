"""The lengths, frame rates and references of a video model, by the parameters of its `config.pbtxt`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

DEFAULT_MAX_FPS = 60
"""Most frames a second, where the model does not say how many."""
_REFERENCES = frozenset({"image", "frames"})
_TOLERANCE = 1e-6
"""Frames by which a product of seconds and frames a second may exceed a whole number, for it is rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """The videos that a model can generate. Their sizes and steps are those of `ModelCard.image`.

    The number of frames is a multiple of `frame_multiple`, and one more if that is above 1.
    """

    default_num_frames: int = 1
    max_num_frames: int = 1
    frame_multiple: int = 1
    default_fps: int = 1
    """Frames a second of a video whose request names none."""
    max_fps: int = DEFAULT_MAX_FPS
    references: frozenset[str] = frozenset()
    """The references that a video may start from: `image`, its first frame; `frames`, another video."""

    def num_frames(self, seconds: float, fps: int) -> int:
        """Return the least number of frames that the model generates and that last at least `seconds`."""
        return self.round_up(max(1, ceil(seconds * fps - _TOLERANCE)))

    def round_up(self, count: int) -> int:
        """Return the least number of frames that the model generates and that is at least `count`."""
        first = self._first_frame
        return first + self.frame_multiple * ceil((count - first) / self.frame_multiple)

    def round_down(self, count: int) -> int:
        """Return the highest number of frames that the model generates and that is at most `count`; at least 1."""
        first = self._first_frame
        return max(1, first + self.frame_multiple * ((count - first) // self.frame_multiple))

    def seconds(self, num_frames: int, fps: int) -> float:
        """Return the longest request that `num_frames` frames answer, in seconds."""
        return max(1, num_frames - self._first_frame) / fps

    @property
    def _first_frame(self) -> int:
        return 1 if self.frame_multiple > 1 else 0


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
        frame_multiple=_positive(parameters, "frame_multiple", 1),
        default_fps=_positive(parameters, "default_fps", None),
        max_fps=_positive(parameters, "max_fps", DEFAULT_MAX_FPS),
        references=frozenset(references),
    )
    if limits.round_up(default) != default or default > limits.max_num_frames:
        raise ValueError(f"default_num_frames {default} is not a supported number of frames")
    return limits


def _positive(parameters: Mapping[str, str], name: str, default: int | None) -> int:
    value = parameters[name] if default is None else parameters.get(name, str(default))
    if not value.isdigit() or not int(value):
        raise ValueError(f"{name} is {value!r}; expected a positive integer")
    return int(value)
