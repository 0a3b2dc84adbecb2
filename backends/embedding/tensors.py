"""Conversion between Triton's tensors and the requests and results of this backend."""

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from backends.embedding.encoder import Embeddings
from backends.embedding.request_frontend import Request
from backends.serving.triton import Inputs, TritonResponseSender


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter."""
    purpose = inputs.text("purpose")
    request = Request(
        texts=inputs.texts("text"),
        token_ids=inputs.array("token_ids"),
        token_counts=inputs.array("token_counts"),
        dimensions=inputs.integer("dimensions"),
        purpose=None if purpose is None else purpose.decode("utf-8", "replace"),
        truncate=inputs.flag("truncate"),
        truncate_prompt_tokens=inputs.integer("truncate_prompt_tokens"),
    )
    inputs.reject_remaining_parameters()
    return request


class EmbeddingResponseSender(TritonResponseSender):
    """Sends the one response of a request: vectors or an error."""

    def send(self, embedding: Embeddings, num_tokens: npt.NDArray[np.int32]) -> None:
        """Send float32[inputs, dimensions] and the token counts, int32[inputs], as the last response."""
        outputs = [pb_utils.Tensor("embedding", embedding), pb_utils.Tensor("num_tokens", num_tokens)]
        self.respond(pb_utils.InferenceResponse(outputs), final=True)
