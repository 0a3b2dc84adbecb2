"""Conversion between Triton's tensors and the requests and responses of this backend."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.diffusion.request import ImageRequest, VideoRequest
from backends.serving.errors import InvalidValue
from backends.serving.triton import Inputs, TritonResponseSender


def read_request(inputs: Inputs) -> ImageRequest:
    """Read the inputs of one request for images.

    Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter.
    """
    shared = _read_shared(inputs)
    masks = inputs.texts("mask") or []
    if len(masks) > 1:
        raise InvalidValue(f"There can be one mask, not {len(masks)}.", "mask")
    request = ImageRequest(
        **shared,
        num_images=_or(inputs.integer("num_images"), 1),
        mask=masks[0] if masks else None,
        output_format=inputs.decoded_text("output_format") or "png",
    )
    inputs.reject_remaining_parameters()
    return request


def read_video_request(inputs: Inputs) -> VideoRequest:
    """Read the inputs of one request for a video; it raises what `read_request` does."""
    request = VideoRequest(
        **_read_shared(inputs),
        num_frames=inputs.integer("num_frames"),
        fps=inputs.integer("fps"),
        frames=tuple(inputs.texts("frames") or ()),
    )
    inputs.reject_remaining_parameters()
    return request


def _read_shared(inputs: Inputs) -> dict[str, Any]:
    """Read the inputs that requests for images and for videos share."""
    prompt = inputs.decoded_text("prompt")
    if prompt is None:
        raise InvalidValue("There must be a prompt.", "prompt")
    return {
        "prompt": prompt,
        "negative_prompt": inputs.decoded_text("negative_prompt"),
        "width": inputs.integer("width"),
        "height": inputs.integer("height"),
        "steps": inputs.integer("steps"),
        "guidance_scale": inputs.number("guidance_scale"),
        "strength": inputs.number("strength"),
        "seed": inputs.integer("seed", 0, 2**64 - 1),
        "images": tuple(inputs.texts("image") or ()),
        "quality": inputs.integer("quality"),
        "partial_images": _or(inputs.integer("partial_images"), 0),
    }


class _DiffusionResponseSender(TritonResponseSender):
    def send_progress(self, fraction: float) -> None:
        """Send the finished share of the work, 0 to 1."""
        self.send({"progress": np.array([fraction], np.float32)})

    def send(self, outputs: dict[str, Any], *, final: bool = False) -> None:
        """Send one response with the named outputs."""
        tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items()]
        self.respond(pb_utils.InferenceResponse(tensors), final=final)


class ImageResponseSender(_DiffusionResponseSender):
    """Sends the responses of one request: progress, previews, images or an error."""

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send the preview `number`, from 0 on, of the image `index` as an encoded file."""
        self.send({"image": _blob(image), "index": _int32(index), "partial": _int32(number)})

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send the image `index` as an encoded file."""
        self.send({"image": _blob(image), "seed": _uint64(seed), "index": _int32(index)}, final=final)


class VideoResponseSender(_DiffusionResponseSender):
    """Sends the responses of one request: progress, previews, the video or an error."""

    def send_preview(self, image: bytes, number: int) -> None:
        """Send the preview `number`, from 0 on, as an encoded picture of one frame."""
        self.send({"preview": _blob(image), "partial": _int32(number)})

    def send_video(self, video: bytes, size: tuple[int, int], num_frames: int, fps: int, seed: int) -> None:
        """Send the video, an MP4, as the last response. `size` is its width and height in pixels."""
        integers = {"width": size[0], "height": size[1], "num_frames": num_frames, "fps": fps}
        outputs = {"video": _blob(video), "seed": _uint64(seed)}
        self.send(outputs | {name: _int32(value) for name, value in integers.items()}, final=True)


def _blob(file: bytes) -> Any:
    return np.array([file], np.object_)


def _int32(value: int) -> Any:
    return np.array([value], np.int32)


def _uint64(value: int) -> Any:
    return np.array([value], np.uint64)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
