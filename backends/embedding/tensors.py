"""The tensors of requests and answers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from backends.embedding.desk import Request
from backends.embedding.encoder import Rows
from backends.serving.triton import Responding, array, one


def read_request(request: Any) -> Request:
    """Read the inputs of one Triton request. Raises `InvalidValue`."""
    texts = array(request, "text")
    dimensions, purpose = one(request, "dimensions"), one(request, "purpose")
    return Request(
        texts=None if texts is None else [bytes(text) for text in texts.reshape(-1)],
        token_ids=array(request, "token_ids"),
        token_counts=array(request, "token_counts"),
        dimensions=None if dimensions is None else int(dimensions),
        purpose=None if purpose is None else bytes(purpose).decode("utf-8", "replace"),
        truncate=bool(one(request, "truncate")),
    )


class TritonClient(Responding):
    """The way back to the client of one request for vectors."""

    def send(self, embedding: Rows, num_tokens: npt.NDArray[np.int32]) -> None:
        """Send the rows and the tokens of each input, as the one response."""
        outputs = [pb_utils.Tensor("embedding", embedding), pb_utils.Tensor("num_tokens", num_tokens)]
        self.respond(pb_utils.InferenceResponse(outputs), final=True)
