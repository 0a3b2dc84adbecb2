"""The `parameters` of `config.pbtxt` that models of videos have besides those of images."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from backends.diffusion.options import Options, read_options
from backends.serving.config_parameters import integer_value, json_value, string_values
from backends.serving.errors import InvalidValue

REFERENCES = ("image", "frames")
"""The inputs that a request may have besides its prompt: a first frame, or the frames of a video to start from."""
ENCODER_VARIABLE = "TRITONIC_VIDEO_ENCODER"
"""Variable of Triton's environment that chooses the encoder of models whose parameters do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions(Options):
    """The options of a model of videos, as docs/architecture.md describes them.

    The model generates numbers of frames that are multiples of `frame_multiple` plus 1; a video may have fewer, as its
    surplus frames are dropped. `encoder` is `auto` or an encoder of FFmpeg.
    """

    outputs: ClassVar[str] = "videos"

    default_num_frames: int
    max_num_frames: int
    frame_multiple: int
    default_fps: int
    max_fps: int
    references: tuple[str, ...]
    encoder: str

    def check_num_frames(self, num_frames: int) -> None:
        """Raise `InvalidValue`, naming the numbers that the model supports, for one that it does not."""
        if not 1 <= num_frames <= self.max_num_frames:
            raise InvalidValue(
                f"This model generates 1 to {self.max_num_frames} frames, not {num_frames}.", "num_frames"
            )

    def round_up(self, num_frames: int) -> int:
        """Return the least number of frames that the model generates and that is at least `num_frames`."""
        return 1 + -(-(num_frames - 1) // self.frame_multiple) * self.frame_multiple


def read_video_options(
    parameters: Mapping[str, Mapping[str, Any]], size_multiple: int, temporal_factor: int
) -> VideoOptions:
    """Read `parameters` as `read_options` does; `temporal_factor` is the number of frames to a latent frame.

    Raises `ValueError` with a sentence that names the parameter.
    """
    images = read_options(parameters, size_multiple)
    values = string_values(parameters)
    multiple = integer_value(values, "frame_multiple", temporal_factor)
    if multiple % temporal_factor:
        raise ValueError(f"The parameter frame_multiple is {multiple}, which is no multiple of {temporal_factor}.")
    default_num_frames = integer_value(values, "default_num_frames", 20 * multiple + 1)
    default_fps = integer_value(values, "default_fps", 16)
    options = VideoOptions(
        **{field.name: getattr(images, field.name) for field in fields(images)},
        default_num_frames=default_num_frames,
        max_num_frames=integer_value(values, "max_num_frames", default_num_frames),
        frame_multiple=multiple,
        default_fps=default_fps,
        max_fps=integer_value(values, "max_fps", max(60, default_fps)),
        references=_references(values),
        encoder=values.get("video_encoder") or os.environ.get(ENCODER_VARIABLE) or "auto",
    )
    try:
        options.check_num_frames(options.default_num_frames)
    except InvalidValue as error:
        raise ValueError(f"The parameter default_num_frames does not fit: {error.message}") from None
    if options.round_up(options.max_num_frames) != options.max_num_frames:
        raise ValueError(
            f"The parameter max_num_frames is {options.max_num_frames}; it must be a multiple of {multiple} plus 1."
        )
    if options.default_fps > options.max_fps:
        raise ValueError(f"The parameter default_fps is {options.default_fps}, above max_fps, {options.max_fps}.")
    return options


def _references(values: Mapping[str, str]) -> tuple[str, ...]:
    found = json_value(values, "references", [])
    if not isinstance(found, list) or any(reference not in REFERENCES for reference in found):
        raise ValueError(f"The parameter references is {found!r}; it must be a list of {' and '.join(REFERENCES)}.")
    return tuple(found)
