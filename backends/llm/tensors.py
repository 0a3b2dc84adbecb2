"""The tensors of requests and answers."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.llm.exchange import Request
from backends.llm.logprobs import TokenBytes, render
from backends.llm.reply import Answer
from backends.serving.triton import Responding, array, one


def read_request(request: Any) -> Request:
    """Read the inputs of one Triton request. Raises `InvalidValue`."""
    stream, excluded = bool(one(request, "stream")), one(request, "exclude_input_in_output")
    text, sampling, pictures = one(request, "text_input"), one(request, "sampling_parameters"), array(request, "image")
    return Request(
        text=None if text is None else bytes(text),
        token_ids=array(request, "token_ids"),
        stream=stream,
        exclude_input=stream if excluded is None else bool(excluded),
        sampling=b"{}" if sampling is None else bytes(sampling),
        literal_spans=array(request, "literal_spans"),
        images=() if pictures is None else tuple(map(bytes, pictures.reshape(-1))),
    )


class TritonClient(Responding):
    """The way back to the client of one request for text."""

    def __init__(self, request: Any, tokens: TokenBytes) -> None:
        super().__init__(request)
        self._tokens = tokens
        self._finish_reason = self._num_input_tokens = self._num_output_tokens = self._logprobs = False

    def read_wishes(self, request: Any) -> None:
        """Read which optional outputs are wanted. Raises `InvalidValue`."""
        self._finish_reason = bool(one(request, "return_finish_reason"))
        self._logprobs = bool(one(request, "return_logprobs"))
        self._num_input_tokens = bool(one(request, "return_num_input_tokens"))
        self._num_output_tokens = bool(one(request, "return_num_output_tokens"))

    def send(self, answer: Answer, num_prompt_tokens: int, *, final: bool) -> None:
        """Send one response, with Triton's final flag if it is the last."""
        outputs = [_texts("text_output", answer.texts)]
        if self._finish_reason:
            outputs.append(_texts("finish_reason", answer.finish_reasons))
        if self._logprobs:
            rendered = [render(entries, self._tokens) for entries in answer.logprobs]
            outputs.append(pb_utils.Tensor("logprobs", np.array(rendered, np.object_)))
        if self._num_input_tokens:
            outputs.append(pb_utils.Tensor("num_input_tokens", np.array([num_prompt_tokens], np.uint32)))
        if self._num_output_tokens:
            outputs.append(pb_utils.Tensor("num_output_tokens", np.array([answer.num_tokens], np.uint32)))
        self.respond(pb_utils.InferenceResponse(outputs), final=final)


def _texts(name: str, values: tuple[str, ...]) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode("utf-8") for value in values], np.object_))
