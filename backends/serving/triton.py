"""Triton's requests and responses: with each backend's `model.py` and `tensors.py`, all that needs its Python stub."""

import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from backends.serving import errors
from backends.serving.publisher import Metric

# Names of codes: Triton fills its module with the codes themselves only after it has imported this one.
_STATUS = {
    errors.InvalidValue: "INVALID_ARG",
    errors.UnsupportedOption: "INVALID_ARG",
    errors.ContextLengthExceeded: "INVALID_ARG",
    errors.Overloaded: "UNAVAILABLE",
    errors.Cancelled: "CANCELLED",
}


class Responding:
    """The way back to the client of one Triton request.

    The last response ends the request within the server. Asking after that, or meanwhile, whether the request is
    cancelled reads freed memory there and kills the whole server: a lock keeps the two apart.
    """

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        self._ending = threading.Lock()
        self._ended = False

    def is_gone(self) -> bool:
        """Whether the client has cancelled."""
        with self._ending:
            return not self._ended and bool(self._sender.is_cancelled())

    def fail(self, error: errors.GenerationError) -> None:
        """Send an error as the last response."""
        status = getattr(pb_utils.TritonError, _STATUS.get(type(error), "INTERNAL"))
        # A lone surrogate that a caller put into a name could not be sent.
        text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self.respond(pb_utils.InferenceResponse([], pb_utils.TritonError(text, status)), final=True)

    def respond(self, response: Any, *, final: bool) -> None:
        """Send one response, with Triton's final flag if it is the last."""
        if not final:
            self._sender.send(response)
            return
        with self._ending:
            self._ended = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # A sender that anything still refers to keeps Triton from unloading the model.
            self._sender = None


Names = dict[str, tuple[str, str]]
"""By the name of a figure, the name and the description of a metric."""


def make_metrics(model: str, gauges: Names, counters: Names) -> tuple[dict[str, Metric], dict[str, Metric], list[Any]]:
    """Gauges and counters labelled by model, and the families, which must live as long as they."""
    families: list[Any] = []

    def make(names: Names, kind: Any) -> dict[str, Metric]:
        made: dict[str, Metric] = {}
        for figure, (name, description) in names.items():
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            families.append(family)
            made[figure] = family.Metric(labels={"model": model})
        return made

    return make(gauges, pb_utils.MetricFamily.GAUGE), make(counters, pb_utils.MetricFamily.COUNTER), families


def array(request: Any, name: str) -> Any:
    """An input as a numpy array; None where it was not sent."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def one(request: Any, name: str) -> Any:
    """The element of an input of one element; None where it was not sent. Raises `InvalidValue`."""
    found = array(request, name)
    if found is None:
        return None
    if found.size != 1:
        raise errors.InvalidValue(f"This must hold one element, not {found.size}.", name)
    return found.reshape(-1)[0]
