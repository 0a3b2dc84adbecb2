"""Triton's requests, responses and metrics.

This module, `bls.py`, and each backend's `model.py` and `tensors.py` are all that import
`triton_python_backend_utils`, which exists only within Triton.
"""

import math
import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from backends.serving import errors, scalar_values
from backends.serving.metrics_publisher import Metric
from backends.serving.request_parameters import read_request_parameters

# The names of Triton's error codes: Triton adds the codes to its module only after it has imported this one.
_ERROR_STATUS = {
    errors.InvalidValue: "INVALID_ARG",
    errors.UnsupportedOption: "INVALID_ARG",
    errors.ContextLengthExceeded: "INVALID_ARG",
    errors.Overloaded: "UNAVAILABLE",
    errors.Unavailable: "UNAVAILABLE",
    errors.Cancelled: "CANCELLED",
}


class TritonResponseSender:
    """Sends the responses of one Triton request.

    The last response ends the request within the server. Calling `is_cancelled` of Triton's sender during or after that
    reads freed memory and crashes the whole server, so a lock excludes it.
    """

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()
        self._final_lock = threading.Lock()
        self._final_sent = False

    def is_cancelled(self) -> bool:
        """Return whether the client has cancelled; False once the last response is sent."""
        with self._final_lock:
            return not self._final_sent and bool(self._sender.is_cancelled())

    def fail(self, error: errors.GenerationError) -> None:
        """Send an error as the last response."""
        status = getattr(pb_utils.TritonError, _ERROR_STATUS.get(type(error), "INTERNAL"))
        # A client may have put a lone surrogate into a name, which UTF-8 cannot encode.
        text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self.respond(pb_utils.InferenceResponse([], pb_utils.TritonError(text, status)), final=True)

    def respond(self, response: Any, *, final: bool) -> None:
        """Send one response; the last one carries Triton's final flag."""
        if not final:
            self._sender.send(response)
            return
        with self._final_lock:
            self._final_sent = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # Triton does not unload a model while anything refers to one of its response senders.
            self._sender = None


MetricNames = dict[str, tuple[str, str]]
"""The name and the description of a metric, by the name of an attribute of the backend's `Stats`."""


def make_metrics(
    model: str, gauges: MetricNames, counters: MetricNames
) -> tuple[dict[str, Metric], dict[str, Metric], list[Any]]:
    """Return gauges and counters with the label `model`, by attribute of `Stats`, and their metric families.

    The caller must keep the families for as long as it uses the metrics.
    """
    families: list[Any] = []

    def make(names: MetricNames, kind: Any) -> dict[str, Metric]:
        metrics: dict[str, Metric] = {}
        for attribute, (name, description) in names.items():
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            families.append(family)
            metrics[attribute] = family.Metric(labels={"model": model})
        return metrics

    return make(gauges, pb_utils.MetricFamily.GAUGE), make(counters, pb_utils.MetricFamily.COUNTER), families


class Inputs:
    """The inputs of one Triton request; each is read once.

    If a tensor is absent, a request parameter of the same name takes its place. Every method raises `InvalidValue`,
    naming the input, for a value that it cannot return.
    """

    def __init__(self, request: Any) -> None:
        """Raises `InvalidValue` if the request parameters cannot be parsed."""
        self._request = request
        self._parameters = read_request_parameters(request)

    def array(self, name: str) -> Any:
        """Return a tensor as a numpy array, or None if it was not sent. It cannot be sent as a parameter."""
        tensor, parameter = self._find(name)
        if tensor is None and parameter is not None:
            raise errors.InvalidValue("This can be sent as a tensor, not as a request parameter.", name)
        return None if tensor is None else tensor.as_numpy()

    def texts(self, name: str) -> list[bytes] | None:
        """Return all elements of a BYTES tensor, or the string of a parameter as the only one; None if not sent."""
        tensor, parameter = self._find(name)
        if tensor is not None:
            return list(map(bytes, tensor.as_numpy().reshape(-1)))
        return None if parameter is None else [_encode_string(name, parameter)]

    def text(self, name: str) -> bytes | None:
        """Return the string of an input, or None if it was not sent."""
        element, parameter = self._scalar(name)
        if element is not None:
            return bytes(element)
        return None if parameter is None else _encode_string(name, parameter)

    def decoded_text(self, name: str) -> str | None:
        """Return the string of an input, or None if it was not sent; it must be UTF-8."""
        value = self.text(name)
        try:
            return None if value is None else value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise errors.InvalidValue(f"This is not UTF-8: {error.reason} at byte {error.start}.", name) from None

    def flag(self, name: str) -> bool | None:
        """Return the boolean of an input, or None if it was not sent."""
        element, parameter = self._scalar(name)
        if element is not None:
            return bool(element)
        return None if parameter is None else scalar_values.parse_boolean(name, parameter)

    def integer(self, name: str, low: int = -(2**31), high: int = 2**31 - 1) -> int | None:
        """Return the integer of an input, or None if it was not sent. A parameter must lie within the bounds."""
        element, parameter = self._scalar(name)
        if element is not None:
            return int(element)
        return None if parameter is None else scalar_values.parse_integer(name, parameter, low, high)

    def number(self, name: str) -> float | None:
        """Return the number of an input, or None if it was not sent."""
        element, parameter = self._scalar(name)
        if element is not None:
            return float(element)
        return None if parameter is None else scalar_values.parse_number(name, parameter, -math.inf, math.inf)

    def remaining_parameters(self) -> dict[str, Any]:
        """Return the request parameters that no input has been read from, by name."""
        return self._parameters

    def reject_remaining_parameters(self) -> None:
        """Raise `UnsupportedOption`, naming one of the remaining parameters, if there are any."""
        for name in self._parameters:
            raise errors.UnsupportedOption(f"This model has no input {name[:64]!r}.", name[:64])

    def _find(self, name: str) -> tuple[Any, Any]:
        """Return the tensor and the parameter of a name; each is None if it was not sent."""
        return pb_utils.get_input_tensor_by_name(self._request, name), self._parameters.pop(name, None)

    def _scalar(self, name: str) -> tuple[Any, Any]:
        """Return the only element of a tensor, or None and the parameter of the same name."""
        tensor, parameter = self._find(name)
        if tensor is None:
            return None, parameter
        array = tensor.as_numpy()
        if array.size != 1:
            raise errors.InvalidValue(f"This must hold one element, not {array.size}.", name)
        return array.reshape(-1)[0], None


def _encode_string(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise errors.InvalidValue("This must be a string.", name)
    return value.encode("utf-8", "surrogatepass")
