"""Conversion between Triton's tensors and the requests and responses of this backend."""

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.face_swap.request_frontend import Request
from backends.serving.triton import Inputs, TritonResponseSender


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter."""
    request = Request(
        source=inputs.text("source"),
        target=inputs.text("target"),
        output_format=inputs.decoded_text("output_format"),
        quality=inputs.integer("quality"),
    )
    inputs.reject_remaining_parameters()
    return request


class FaceSwapResponseSender(TritonResponseSender):
    """Sends the responses of one request: progress, and an image or an error."""

    def send_progress(self, fraction: float) -> None:
        """Send the part of the work that is done, 0 to 1."""
        self.respond(
            pb_utils.InferenceResponse([pb_utils.Tensor("progress", np.array([fraction], np.float32))]), final=False
        )

    def send_image(self, data: bytes, size: tuple[int, int], num_faces: int) -> None:
        """Send the image, an encoded file, its width and height, and the number of faces, as the last response."""
        numbers = {"width": size[0], "height": size[1], "num_faces": num_faces}
        tensors = [pb_utils.Tensor(name, np.array([number], np.int32)) for name, number in numbers.items()]
        image = pb_utils.Tensor("image", np.array([data], np.object_))
        self.respond(pb_utils.InferenceResponse([image, *tensors]), final=True)
