"""Triton's tensors and responses: with `model.py`, the only module that needs Triton's Python stub."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from backends.embedding.desk import Request
from backends.embedding.encoder import Rows
from backends.llm import errors
from backends.llm.metrics import Metric

GAUGES = {"texts_waiting": ("embedding_texts_waiting", "Texts that wait for a run")}
COUNTERS = {
    "requests_cancelled": ("embedding_requests_cancelled_total", "Requests cancelled by their clients"),
    "runs": ("embedding_runs_total", "Runs of the network"),
    "texts": ("embedding_texts_total", "Texts embedded"),
    "tokens": ("embedding_tokens_total", "Tokens embedded, padding not counted"),
    "padding": ("embedding_padding_total", "Tokens of padding computed beside them"),
}

# Names of codes: Triton fills its module with the codes themselves only after it has imported this one.
_STATUS = {
    errors.InvalidValue: "INVALID_ARG",
    errors.UnsupportedOption: "INVALID_ARG",
    errors.ContextLengthExceeded: "INVALID_ARG",
    errors.Overloaded: "UNAVAILABLE",
    errors.Cancelled: "CANCELLED",
}


def read_request(request: Any) -> Request:
    """Read the inputs of one Triton request. Raises `InvalidValue`."""
    texts = _array(request, "text")
    dimensions, purpose = _one(request, "dimensions"), _one(request, "purpose")
    return Request(
        texts=None if texts is None else [bytes(text) for text in texts.reshape(-1)],
        token_ids=_array(request, "token_ids"),
        token_counts=_array(request, "token_counts"),
        dimensions=None if dimensions is None else int(dimensions),
        purpose=None if purpose is None else bytes(purpose).decode("utf-8", "replace"),
        truncate=bool(_one(request, "truncate")),
    )


class TritonClient:
    """The way back to the client of one Triton request.

    The response ends the request within the server. Asking after that, or meanwhile, whether the request is cancelled
    reads freed memory there and kills the whole server: a lock keeps the two apart.
    """

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        self._ending = threading.Lock()
        self._ended = False

    def is_gone(self) -> bool:
        """Whether the client has cancelled."""
        with self._ending:
            return not self._ended and bool(self._sender.is_cancelled())

    def send(self, embedding: Rows, num_tokens: npt.NDArray[np.int32]) -> None:
        """Send the rows and the tokens of each input."""
        outputs = [pb_utils.Tensor("embedding", embedding), pb_utils.Tensor("num_tokens", num_tokens)]
        self._send(pb_utils.InferenceResponse(outputs))

    def fail(self, error: errors.GenerationError) -> None:
        """Send an error."""
        status = getattr(pb_utils.TritonError, _STATUS.get(type(error), "INTERNAL"))
        # A lone surrogate that a caller put into a name could not be sent.
        text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self._send(pb_utils.InferenceResponse([], pb_utils.TritonError(text, status)))

    def _send(self, response: Any) -> None:
        with self._ending:
            self._ended = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # A sender that anything still refers to keeps Triton from unloading the model.
            self._sender = None


def make_metrics(model: str) -> tuple[dict[str, Metric], dict[str, Metric], list[Any]]:
    """Gauges and counters labelled by model, and the families, which must live as long as they."""
    families: list[Any] = []

    def make(names: dict[str, tuple[str, str]], kind: Any) -> dict[str, Metric]:
        made: dict[str, Metric] = {}
        for name, (title, description) in names.items():
            family = pb_utils.MetricFamily(name=title, description=description, kind=kind)
            families.append(family)
            made[name] = family.Metric(labels={"model": model})
        return made

    return make(GAUGES, pb_utils.MetricFamily.GAUGE), make(COUNTERS, pb_utils.MetricFamily.COUNTER), families


def _array(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _one(request: Any, name: str) -> Any:
    array = _array(request, name)
    if array is None:
        return None
    if array.size != 1:
        raise errors.InvalidValue(f"This must hold one element, not {array.size}.", name)
    return array.reshape(-1)[0]
