"""The tensors of requests and answers."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.diffusion.request import Request
from backends.serving.errors import InvalidValue
from backends.serving.triton import Responding, array, one


def read_request(request: Any) -> Request:
    """Read the inputs of one Triton request. Raises `InvalidValue`."""
    prompt = _text(request, "prompt")
    if prompt is None:
        raise InvalidValue("There must be a prompt.", "prompt")
    masks = _files(request, "mask")
    if len(masks) > 1:
        raise InvalidValue(f"There can be one mask, not {len(masks)}.", "mask")
    return Request(
        prompt=prompt,
        negative_prompt=_text(request, "negative_prompt"),
        width=_integer(request, "width"),
        height=_integer(request, "height"),
        steps=_integer(request, "steps"),
        num_images=_or(_integer(request, "num_images"), 1),
        guidance_scale=_number(request, "guidance_scale"),
        strength=_number(request, "strength"),
        seed=_integer(request, "seed"),
        images=_files(request, "image"),
        mask=masks[0] if masks else None,
        output_format=_text(request, "output_format") or "png",
        quality=_integer(request, "quality"),
        partial_images=_or(_integer(request, "partial_images"), 0),
    )


class TritonClient(Responding):
    """The way back to the client of one request for images."""

    def send_progress(self, fraction: float) -> None:
        """Send how much of the work is done, 0 to 1."""
        self._send({"progress": np.array([fraction], np.float32)})

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send an encoded preview of an image."""
        self._send({"image": _blob(image), "index": _int32(index), "partial": _int32(number)})

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send an encoded image."""
        seeds = np.array([seed], np.uint64)
        self._send({"image": _blob(image), "seed": seeds, "index": _int32(index)}, final=final)

    def _send(self, outputs: dict[str, Any], *, final: bool = False) -> None:
        tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items()]
        self.respond(pb_utils.InferenceResponse(tensors), final=final)


def _blob(file: bytes) -> Any:
    return np.array([file], np.object_)


def _int32(value: int) -> Any:
    return np.array([value], np.int32)


def _or(value: int | None, usual: int) -> int:
    return usual if value is None else value


def _text(request: Any, name: str) -> str | None:
    value = one(request, name)
    if value is None:
        return None
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(f"This is not UTF-8: {error.reason} at byte {error.start}.", name) from None


def _integer(request: Any, name: str) -> int | None:
    value = one(request, name)
    return None if value is None else int(value)


def _number(request: Any, name: str) -> float | None:
    value = one(request, name)
    return None if value is None else float(value)


def _files(request: Any, name: str) -> tuple[bytes, ...]:
    found = array(request, name)
    return () if found is None else tuple(bytes(file) for file in found.reshape(-1))
