"""Conversion between Triton's tensors and the requests and responses of this backend."""

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.serving.triton import Inputs, TritonResponseSender
from backends.speech.request_frontend import Pcm, Request


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter."""
    request = Request(
        text=inputs.text("text"),
        voice=inputs.decoded_text("voice"),
        language=inputs.decoded_text("language"),
        speed=inputs.number("speed"),
        instructions=inputs.decoded_text("instructions"),
    )
    inputs.reject_remaining_parameters()
    return request


class SpeechResponseSender(TritonResponseSender):
    """Sends the responses of one request: chunks of samples, or an error."""

    def send(self, audio: Pcm, sample_rate: int, num_tokens: int, num_frames: int) -> None:
        """Send a chunk: int16[samples], mono."""
        tensors = [
            pb_utils.Tensor("audio", audio),
            pb_utils.Tensor("sample_rate", np.array([sample_rate], np.int32)),
            pb_utils.Tensor("num_input_tokens", np.array([num_tokens], np.uint32)),
            pb_utils.Tensor("num_output_tokens", np.array([num_frames], np.uint32)),
        ]
        self.respond(pb_utils.InferenceResponse(tensors), final=False)

    def finish(self) -> None:
        """Send the final flag alone."""
        self.respond(None, final=True)
