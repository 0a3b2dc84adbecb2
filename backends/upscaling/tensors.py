"""Conversion between Triton's tensors and the requests and responses of this backend."""

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.serving.errors import InvalidValue
from backends.serving.triton import Inputs, TritonResponseSender
from backends.upscaling.request_frontend import Request


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter."""
    images = inputs.texts("image") or []
    if len(images) > 1:
        raise InvalidValue(f"There must be one picture, not {len(images)}.", "image")
    request = Request(
        image=images[0] if images else None,
        scale=inputs.integer("scale"),
        output_format=inputs.decoded_text("output_format") or "png",
        quality=inputs.integer("quality"),
    )
    inputs.reject_remaining_parameters()
    return request


class UpscalingResponseSender(TritonResponseSender):
    """Sends the responses of one request: progress, the picture, or an error."""

    def send_progress(self, fraction: float) -> None:
        """Send the finished share of the work, 0 to 1."""
        tensor = pb_utils.Tensor("progress", np.array([fraction], np.float32))
        self.respond(pb_utils.InferenceResponse([tensor]), final=False)

    def send(self, image: bytes, width: int, height: int) -> None:
        """Send the encoded picture and its size in pixels as the last response."""
        tensors = [
            pb_utils.Tensor("image", np.array([image], np.object_)),
            pb_utils.Tensor("width", np.array([width], np.int32)),
            pb_utils.Tensor("height", np.array([height], np.int32)),
        ]
        self.respond(pb_utils.InferenceResponse(tensors), final=True)
