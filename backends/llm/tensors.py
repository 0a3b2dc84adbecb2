"""Triton's tensors and responses: with `model.py`, the only module that needs Triton's Python stub."""

import threading
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.llm import errors
from backends.llm.desk import Request
from backends.llm.logprobs import TokenBytes, render
from backends.llm.metrics import COUNTERS, GAUGES, Metric
from backends.llm.reply import Answer

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
    stream = _flag(request, "stream", False)
    token_ids = _tensor(request, "token_ids")
    sampling = _bytes(request, "sampling_parameters")
    pictures = _tensor(request, "image")
    return Request(
        text=_bytes(request, "text_input"),
        token_ids=token_ids,
        stream=stream,
        exclude_input=_flag(request, "exclude_input_in_output", stream),
        sampling=b"{}" if sampling is None else sampling,
        images=() if pictures is None else tuple(map(bytes, pictures.reshape(-1))),
    )


class TritonClient:
    """The way back to the client of one Triton request.

    The last response ends the request within the server. Asking after that, or meanwhile, whether the request is
    cancelled reads freed memory there and kills the whole server: a lock keeps the two apart.
    """

    def __init__(self, request: Any, tokens: TokenBytes) -> None:
        self._tokens = tokens
        self._sender = request.get_response_sender()
        self._ending = threading.Lock()
        self._ended = False
        self._finish_reason = self._num_input_tokens = self._num_output_tokens = self._logprobs = False

    def read_wishes(self, request: Any) -> None:
        """Read which optional outputs are wanted. Raises `InvalidValue`."""
        self._finish_reason = _flag(request, "return_finish_reason", False)
        self._logprobs = _flag(request, "return_logprobs", False)
        self._num_input_tokens = _flag(request, "return_num_input_tokens", False)
        self._num_output_tokens = _flag(request, "return_num_output_tokens", False)

    def is_gone(self) -> bool:
        """Whether the client has cancelled."""
        with self._ending:
            return not self._ended and bool(self._sender.is_cancelled())

    def send(self, answer: Answer, num_prompt_tokens: int, *, final: bool) -> None:
        """Send one response, with Triton's final flag if it is the last."""
        outputs = [_output_bytes("text_output", answer.texts)]
        if self._finish_reason:
            outputs.append(_output_bytes("finish_reason", answer.finish_reasons))
        if self._logprobs:
            rendered = [render(entries, self._tokens) for entries in answer.logprobs]
            outputs.append(pb_utils.Tensor("logprobs", np.array(rendered, np.object_)))
        if self._num_input_tokens:
            outputs.append(pb_utils.Tensor("num_input_tokens", np.array([num_prompt_tokens], np.uint32)))
        if self._num_output_tokens:
            outputs.append(pb_utils.Tensor("num_output_tokens", np.array([answer.num_tokens], np.uint32)))
        self._send(pb_utils.InferenceResponse(outputs), final)

    def fail(self, error: errors.GenerationError) -> None:
        """Send an error as the last response."""
        status = getattr(pb_utils.TritonError, _STATUS.get(type(error), "INTERNAL"))
        # A lone surrogate that a caller put into a name could not be sent.
        text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self._send(pb_utils.InferenceResponse([], pb_utils.TritonError(text, status)), True)

    def _send(self, response: Any, final: bool) -> None:
        if not final:
            self._sender.send(response)
            return
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
        for field, (name, description) in names.items():
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            families.append(family)
            made[field] = family.Metric(labels={"model": model})
        return made

    return make(GAUGES, pb_utils.MetricFamily.GAUGE), make(COUNTERS, pb_utils.MetricFamily.COUNTER), families


def _tensor(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _bytes(request: Any, name: str) -> bytes | None:
    array = _tensor(request, name)
    if array is None:
        return None
    if array.size != 1:
        raise errors.InvalidValue(f"This must hold one element, not {array.size}.", name)
    return bytes(array.reshape(-1)[0])


def _flag(request: Any, name: str, default: bool) -> bool:
    array = _tensor(request, name)
    if array is None:
        return default
    if array.size != 1:
        raise errors.InvalidValue(f"This must hold one element, not {array.size}.", name)
    return bool(array.reshape(-1)[0])


def _output_bytes(name: str, values: tuple[str, ...]) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode("utf-8") for value in values], np.object_))
