"""Conversion between Triton's tensors and the requests and responses of this backend."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.diffusion.request import Request
from backends.serving.errors import InvalidValue
from backends.serving.triton import Inputs, TritonResponseSender


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter."""
    prompt = inputs.decoded_text("prompt")
    if prompt is None:
        raise InvalidValue("There must be a prompt.", "prompt")
    masks = inputs.texts("mask") or []
    if len(masks) > 1:
        raise InvalidValue(f"There can be one mask, not {len(masks)}.", "mask")
    request = Request(
        prompt=prompt,
        negative_prompt=inputs.decoded_text("negative_prompt"),
        width=inputs.integer("width"),
        height=inputs.integer("height"),
        steps=inputs.integer("steps"),
        num_images=_or(inputs.integer("num_images"), 1),
        guidance_scale=inputs.number("guidance_scale"),
        strength=inputs.number("strength"),
        seed=inputs.integer("seed", 0, 2**64 - 1),
        images=tuple(inputs.texts("image") or ()),
        mask=masks[0] if masks else None,
        output_format=inputs.decoded_text("output_format") or "png",
        quality=inputs.integer("quality"),
        partial_images=_or(inputs.integer("partial_images"), 0),
    )
    inputs.reject_remaining_parameters()
    return request


class ImageResponseSender(TritonResponseSender):
    """Sends the responses of one request: progress, previews, images or an error."""

    def send_progress(self, fraction: float) -> None:
        """Send the finished share of the work, 0 to 1."""
        self._send({"progress": np.array([fraction], np.float32)})

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send the preview `number`, from 0 on, of the image `index` as an encoded file."""
        self._send({"image": _blob(image), "index": _int32(index), "partial": _int32(number)})

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send the image `index` as an encoded file."""
        seeds = np.array([seed], np.uint64)
        self._send({"image": _blob(image), "seed": seeds, "index": _int32(index)}, final=final)

    def _send(self, outputs: dict[str, Any], *, final: bool = False) -> None:
        tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items()]
        self.respond(pb_utils.InferenceResponse(tensors), final=final)


def _blob(file: bytes) -> Any:
    return np.array([file], np.object_)


def _int32(value: int) -> Any:
    return np.array([value], np.int32)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
