"""Triton's requests and responses: with each backend's `model.py` and `tensors.py`, all that needs its Python stub."""

import math
import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from backends.serving import errors, scalar_values
from backends.serving.metrics_publisher import Metric
from backends.serving.request_parameters import read_request_parameters

# Names of codes: Triton fills its module with the codes themselves only after it has imported this one.
_ERROR_STATUS = {
    errors.InvalidValue: "INVALID_ARG",
    errors.UnsupportedOption: "INVALID_ARG",
    errors.ContextLengthExceeded: "INVALID_ARG",
    errors.Overloaded: "UNAVAILABLE",
    errors.Cancelled: "CANCELLED",
}


class TritonResponseSender:
    """The way back to the client of one Triton request.

    The last response ends the request within the server. Asking after that, or meanwhile, whether the request is
    cancelled reads freed memory there and kills the whole server: a lock keeps the two apart.
    """

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        self._final_lock = threading.Lock()
        self._final_sent = False

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled."""
        with self._final_lock:
            return not self._final_sent and bool(self._sender.is_cancelled())

    def fail(self, error: errors.GenerationError) -> None:
        """Send an error as the last response."""
        status = getattr(pb_utils.TritonError, _ERROR_STATUS.get(type(error), "INTERNAL"))
        # A lone surrogate that a caller put into a name could not be sent.
        text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self.respond(pb_utils.InferenceResponse([], pb_utils.TritonError(text, status)), final=True)

    def respond(self, response: Any, *, final: bool) -> None:
        """Send one response, with Triton's final flag if it is the last."""
        if not final:
            self._sender.send(response)
            return
        with self._final_lock:
            self._final_sent = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # A sender that anything still refers to keeps Triton from unloading the model.
            self._sender = None


MetricNames = dict[str, tuple[str, str]]
"""By the name of a figure, the name and the description of a metric."""


def make_metrics(
    model: str, gauges: MetricNames, counters: MetricNames
) -> tuple[dict[str, Metric], dict[str, Metric], list[Any]]:
    """Gauges and counters labelled by model, and the families, which must live as long as they."""
    families: list[Any] = []

    def make(names: MetricNames, kind: Any) -> dict[str, Metric]:
        made: dict[str, Metric] = {}
        for figure, (name, description) in names.items():
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            families.append(family)
            made[figure] = family.Metric(labels={"model": model})
        return made

    return make(gauges, pb_utils.MetricFamily.GAUGE), make(counters, pb_utils.MetricFamily.COUNTER), families


class Inputs:
    """The inputs of one Triton request, each read once.

    A request parameter of an input's name stands in where the tensor is absent.
    """

    def __init__(self, request: Any) -> None:
        """Raises `InvalidValue` where the parameters cannot be read."""
        self._request = request
        self._parameters = read_request_parameters(request)

    def array(self, name: str) -> Any:
        """A tensor as a numpy array; None where it was not sent. Raises `InvalidValue` for a parameter instead."""
        tensor, instead = self._find(name)
        if tensor is None and instead is not None:
            raise errors.InvalidValue("This can be sent as a tensor, not as a request parameter.", name)
        return None if tensor is None else tensor.as_numpy()

    def texts(self, name: str) -> list[bytes] | None:
        """All elements of a tensor of strings, or the one string of a parameter. Raises `InvalidValue`."""
        tensor, instead = self._find(name)
        if tensor is not None:
            return list(map(bytes, tensor.as_numpy().reshape(-1)))
        return None if instead is None else [_encode_string(name, instead)]

    def text(self, name: str) -> bytes | None:
        """The one string of an input; None where it was not sent. So are the others; they raise `InvalidValue`."""
        element, instead = self._scalar(name)
        if element is not None:
            return bytes(element)
        return None if instead is None else _encode_string(name, instead)

    def flag(self, name: str) -> bool | None:
        """The one flag of an input."""
        element, instead = self._scalar(name)
        if element is not None:
            return bool(element)
        return None if instead is None else scalar_values.parse_boolean(name, instead)

    def integer(self, name: str, low: int = -(2**31), high: int = 2**31 - 1) -> int | None:
        """The one whole number of an input, which as a parameter must lie within the bounds."""
        element, instead = self._scalar(name)
        if element is not None:
            return int(element)
        return None if instead is None else scalar_values.parse_integer(name, instead, low, high)

    def number(self, name: str) -> float | None:
        """The one number of an input."""
        element, instead = self._scalar(name)
        if element is not None:
            return float(element)
        return None if instead is None else scalar_values.parse_number(name, instead, -math.inf, math.inf)

    def remaining_parameters(self) -> dict[str, Any]:
        """The parameters that have been read as no input."""
        return self._parameters

    def reject_remaining_parameters(self) -> None:
        """Raise `UnsupportedOption`, naming one of `others`, where there are any."""
        for name in self._parameters:
            raise errors.UnsupportedOption(f"This model has no input {name[:64]!r}.", name[:64])

    def _find(self, name: str) -> tuple[Any, Any]:
        """The tensor, and the parameter of the same name."""
        return pb_utils.get_input_tensor_by_name(self._request, name), self._parameters.pop(name, None)

    def _scalar(self, name: str) -> tuple[Any, Any]:
        """The element of a tensor of one, and the parameter of the same name. Raises `InvalidValue`."""
        tensor, instead = self._find(name)
        if tensor is None:
            return None, instead
        found = tensor.as_numpy()
        if found.size != 1:
            raise errors.InvalidValue(f"This must hold one element, not {found.size}.", name)
        return found.reshape(-1)[0], None


def _encode_string(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise errors.InvalidValue("This must be a string.", name)
    return value.encode("utf-8", "surrogatepass")
