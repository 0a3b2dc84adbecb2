"""The tensors of Triton's vLLM backend, which `backends/llm` speaks too (docs/architecture.md).

https://github.com/triton-inference-server/vllm_backend/blob/main/src/model.py
"""

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import fields
from typing import get_args

from gateway.errors import GatewayError, ModelFailed
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, FinishReason, Sampling, TextEvent, Usage
from gateway.prompting import template
from gateway.triton import Response, Tensor, boolean, text

INPUTS: Mapping[str, str] = {
    "text_input": "BYTES",
    "stream": "BOOL",
    "sampling_parameters": "BYTES",
    "exclude_input_in_output": "BOOL",
    "return_finish_reason": "BOOL",
    "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
}
OUTPUTS: Mapping[str, str] = {
    "text_output": "BYTES",
    "finish_reason": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}
OPERATIONS: tuple[type, ...] = (Chat, Complete)

_REASONS = frozenset(get_args(FinishReason))
# The vLLM backend writes Python's `str(None)` while an answer grows.
_UNFINISHED = frozenset({"", "None"})


def encode(request: Chat | Complete, parameters: Mapping[str, str]) -> list[Tensor]:
    """Return the tensors of `request`; `parameters` are those of the model's configuration.

    Raises `InvalidRequest` where the model's chat template refuses the messages.
    """
    if isinstance(request, Chat):
        special_tokens = json.loads(parameters.get("special_tokens", "{}"))
        prompt = template.render(parameters["chat_template"], request.messages, special_tokens)
    else:
        prompt = request.prompt
    return [
        text("text_input", prompt),
        # Whole answers are streams folded here: a long one shows that the model lives.
        boolean("stream", True),
        text("sampling_parameters", json.dumps(_sampling_parameters(request.sampling))),
        boolean("exclude_input_in_output", True),
        boolean("return_finish_reason", True),
        boolean("return_num_input_tokens", True),
        boolean("return_num_output_tokens", True),
    ]


def _sampling_parameters(sampling: Sampling) -> dict[str, object]:
    """Only what the caller gave: a default written here would override the model's own."""
    given: dict[str, object] = {}
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if value is not None and value != field.default:
            given[field.name] = list(value) if isinstance(value, tuple) else value
    return given


def check(parameters: Mapping[str, str]) -> None:
    """Raise `ValueError` when a model's parameters could not carry what it says it offers."""
    special_tokens = json.loads(parameters.get("special_tokens", "{}"))
    if not isinstance(special_tokens, dict) or not all(isinstance(v, str) for v in special_tokens.values()):
        raise ValueError("special_tokens is not an object of strings")
    if "chat" in json.loads(parameters["operations"]) and "chat_template" not in parameters:
        raise ValueError("it offers chat and has no chat_template")


def explain(request: Chat | Complete, error: GatewayError) -> GatewayError:
    """Name the caller's field, where the model named its tensor; sampling parameters have the same name in both."""
    if error.param == "text_input":
        error.param = "messages" if isinstance(request, Chat) else "prompt"
    elif error.param in INPUTS:
        error.param = None
    return error


async def decode(responses: AsyncGenerator[Response]) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`. Raises `ModelFailed` when they end before every answer is finished."""
    prompt_tokens = completion_tokens = 0
    unfinished: set[int] | None = None
    async for response in responses:
        texts = response.texts("text_output")
        reasons = response.texts("finish_reason")
        tokens = response.uint32("num_output_tokens") or 0
        prompt_tokens = response.uint32("num_input_tokens") or prompt_tokens
        completion_tokens += tokens
        if unfinished is None:
            unfinished = set(range(len(texts)))
        grown = [index for index, added in enumerate(texts) if added]
        if tokens and not grown:
            grown = sorted(unfinished)[:1]  # tokens without text yet: half a character, or the end of the sequence
        for index in grown:
            yield Delta(index, texts[index], tokens)
            tokens = 0
        for index, reason in enumerate(reasons):
            if reason not in _UNFINISHED and index in unfinished:
                unfinished.discard(index)
                yield Finish(index, _finish_reason(reason))
    if unfinished is None or unfinished:
        raise ModelFailed("The model ended the stream before its answer was finished.")
    yield Usage(prompt_tokens, completion_tokens)


def _finish_reason(reason: str) -> FinishReason:
    if reason in _REASONS:
        return reason  # type: ignore[return-value]  # checked against the type's own values
    raise ModelFailed(f"The model stopped for an unexpected reason: {reason}.")
