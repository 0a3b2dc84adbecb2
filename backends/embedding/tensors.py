"""The tensors of requests and answers."""

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from backends.embedding.encoder import Embeddings
from backends.embedding.request_frontend import Request
from backends.serving.triton import Inputs, TritonResponseSender


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for a parameter that is none."""
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
    """The way back to the client of one request for vectors."""

    def send(self, embedding: Embeddings, num_tokens: npt.NDArray[np.int32]) -> None:
        """Send the rows and the tokens of each input, as the one response."""
        outputs = [pb_utils.Tensor("embedding", embedding), pb_utils.Tensor("num_tokens", num_tokens)]
        self.respond(pb_utils.InferenceResponse(outputs), final=True)
