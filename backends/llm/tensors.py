"""The tensors of requests and responses. In this backend, only this file and `model.py` use Triton's Python API."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.llm.active_request import Request
from backends.llm.logprobs_json import TokenBytes, render_logprobs
from backends.llm.output_collector import RequestOutput
from backends.serving.triton import Inputs, TritonResponseSender

_NO_LOGPROBS = b"null"
"""The tensor `logprobs` of an answer whose request asks for no log probabilities, in JSON."""
CUMULATIVE_LOGPROB = "cumulative_logprob"


def complete_config(config: Any) -> None:
    """Declare the optional tensors that the config.pbtxt of an older build lacks.

    Triton calls this unless it runs with `--disable-auto-complete-config`.
    """
    config.add_input({"name": f"return_{CUMULATIVE_LOGPROB}", "data_type": "TYPE_BOOL", "dims": [1], "optional": True})
    config.add_output({"name": CUMULATIVE_LOGPROB, "data_type": "TYPE_FP32", "dims": [-1]})


def read_request(inputs: Inputs) -> Request:
    """Read the input tensors of one request. Raises `InvalidValue`."""
    stream, excluded = bool(inputs.flag("stream")), inputs.flag("exclude_input_in_output")
    return Request(
        text=inputs.text("text_input"),
        token_ids=inputs.array("token_ids"),
        stream=stream,
        exclude_input=stream if excluded is None else excluded,
        images=tuple(inputs.texts("image") or ()),
        literal_spans=inputs.array("literal_spans"),
        cumulative_logprob=bool(inputs.flag(f"return_{CUMULATIVE_LOGPROB}")),
        # Read last: without this tensor, all request parameters that are no inputs are the sampling parameters.
        sampling=inputs.remaining_parameters()
        if (document := inputs.text("sampling_parameters")) is None
        else document,
    )


class TextResponseSender(TritonResponseSender):
    """Sends the responses of one text request to Triton."""

    def __init__(self, request: Any, tokens: TokenBytes) -> None:
        super().__init__(request)
        self._tokens = tokens
        self._finish_reason = self._num_input_tokens = self._num_output_tokens = self._logprobs = False

    def read_requested_outputs(self, inputs: Inputs) -> None:
        """Read which optional output tensors the request asks for. Raises `InvalidValue`."""
        self._finish_reason = bool(inputs.flag("return_finish_reason"))
        self._logprobs = bool(inputs.flag("return_logprobs"))
        self._num_input_tokens = bool(inputs.flag("return_num_input_tokens"))
        self._num_output_tokens = bool(inputs.flag("return_num_output_tokens"))

    def send(self, answer: RequestOutput, num_prompt_tokens: int, *, final: bool) -> None:
        """Send one response. `final` sets Triton's final flag."""
        outputs = [_texts("text_output", answer.texts)]
        if self._finish_reason:
            outputs.append(_texts("finish_reason", answer.finish_reasons))
        if self._logprobs:
            rendered = [render_logprobs(entries, self._tokens) for entries in answer.logprobs] or [_NO_LOGPROBS] * len(
                answer.texts
            )
            outputs.append(pb_utils.Tensor("logprobs", np.array(rendered, np.object_)))
        if answer.cumulative_logprobs:
            sums = np.array(answer.cumulative_logprobs, np.float32)
            outputs.append(pb_utils.Tensor(CUMULATIVE_LOGPROB, sums))
        if self._num_input_tokens:
            outputs.append(pb_utils.Tensor("num_input_tokens", np.array([num_prompt_tokens], np.uint32)))
        if self._num_output_tokens:
            outputs.append(pb_utils.Tensor("num_output_tokens", np.array([answer.num_tokens], np.uint32)))
        self.respond(pb_utils.InferenceResponse(outputs), final=final)


def _texts(name: str, values: tuple[str, ...]) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode("utf-8") for value in values], np.object_))
