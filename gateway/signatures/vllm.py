"""The tensors of Triton's vLLM backend, which `backends/llm` speaks too (docs/architecture.md).

https://github.com/triton-inference-server/vllm_backend/blob/main/src/model.py
"""

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import fields
from itertools import chain
from typing import Any

from gateway.errors import GatewayError, ModelFailed, UnsupportedOption
from gateway.operations.complete import Complete
from gateway.operations.text import (
    NOTHING,
    Delta,
    Finish,
    FinishReason,
    Likelihood,
    Sampling,
    TextEvent,
    TokenLogprob,
    Usage,
)
from gateway.signatures import foreign
from gateway.tensors import Response, Tensor, boolean, int32, text
from gateway.triton import ModelConfig

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

_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}
# The vLLM backend writes Python's `str(None)` while an answer grows.
_UNFINISHED = frozenset({"", "None"})


def encode(request: Complete, config: ModelConfig) -> list[Tensor]:
    """Return the tensors of `request`. Raises `UnsupportedOption` for what the model has no tensor for."""
    sampling = request.sampling
    tensors = [
        _prompt(request.prompt, config),
        # Whole answers are streams folded here: a long one shows that the model lives.
        boolean("stream", True),
        text("sampling_parameters", json.dumps(_sampling_parameters(request))),
        boolean("exclude_input_in_output", not _echoed_by_model(request)),
        boolean("return_finish_reason", True),
        boolean("return_num_input_tokens", True),
        boolean("return_num_output_tokens", True),
    ]
    if request.literal_spans:
        tensors.append(int32("literal_spans", *chain.from_iterable(request.literal_spans)))
    if sampling.logprobs is not None or sampling.prompt_logprobs is not None:
        if "return_logprobs" not in config.inputs:
            raise UnsupportedOption("This model gives no log probabilities.", param="logprobs")
        if sampling.prompt_logprobs is not None and "token_ids" not in config.inputs:
            raise UnsupportedOption("Triton's vLLM backend gives none for the prompt.", param="logprobs")
        tensors.append(boolean("return_logprobs", True))
    if request.pictures:
        if "image" not in config.inputs:
            raise UnsupportedOption("This model does not look at pictures.", param="messages")
        tensors.append(text("image", *(base64.b64encode(picture).decode() for picture in request.pictures)))
    return tensors


def _prompt(prompt: str | tuple[int, ...], config: ModelConfig) -> Tensor:
    if isinstance(prompt, str):
        return text("text_input", prompt)
    if "token_ids" not in config.inputs:
        raise UnsupportedOption("This model takes its prompt as text, not as token ids.", param="prompt")
    return int32("token_ids", *prompt)


def _echoed_by_model(request: Complete) -> bool:
    """Only the model can say what text token ids are; a text is put before its answer here, which any model allows."""
    return request.echo and not isinstance(request.prompt, str)


def _sampling_parameters(request: Complete) -> dict[str, object]:
    """Only what the caller gave: a default written here would override the model's own."""
    sampling = request.sampling
    parameters: dict[str, object] = {"skip_special_tokens": False} if request.special_tokens else {}
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if value is not None and value != field.default:
            parameters[field.name] = list(value) if isinstance(value, tuple) else value
    if structure := sampling.structured_outputs:
        # As a string, which is what the vLLM backend reads.
        parameters["structured_outputs"] = json.dumps({structure.kind: structure.value})
    return parameters


def check(parameters: Mapping[str, str]) -> None:
    """Raise `ValueError` when a model's parameters could not carry what it says it offers."""
    foreign.check(parameters)


def explain(error: GatewayError) -> GatewayError:
    """Name the caller's field, where the model named its tensor; sampling parameters have the same name in both."""
    if error.param in ("text_input", "token_ids"):
        error.param = "prompt"
    elif error.param == "image":
        error.param = "messages"
    elif error.param in INPUTS or error.param == "literal_spans":
        error.param = None
    return foreign.explain(error)


async def decode(
    request: Complete, responses: AsyncIterator[Response], config: ModelConfig
) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`. Raises `ModelFailed` when they end before every answer is finished."""
    prompt_tokens = completion_tokens = 0
    unfinished: set[int] | None = None
    async for response in responses:
        texts = response.texts("text_output")
        reasons = response.texts("finish_reason")
        tokens = sum(response.uint32s("num_output_tokens"))  # Triton's vLLM backend counts each answer by itself
        prompt_tokens = max(response.uint32s("num_input_tokens"), default=prompt_tokens)
        completion_tokens += tokens
        logprobs = _read_logprobs(response, request.sampling)
        if unfinished is None:
            unfinished = set(range(len(texts)))
            if request.echo and isinstance(request.prompt, str):
                texts = [request.prompt + added for added in texts]
        grown = [index for index, added in enumerate(texts) if added or logprobs.get(index)]
        if tokens and not grown:
            grown = sorted(unfinished)[:1]  # tokens without text yet: half a character, or the end of the sequence
        for index in grown:
            yield Delta(index, texts[index], tokens, logprobs.get(index, ()))
            tokens = 0
        ended = [(i, why) for i, why in enumerate(reasons) if why not in _UNFINISHED and i in unfinished]
        for index, reason in ended:
            unfinished.discard(index)
            yield Finish(index, _finish_reason(reason))
        if not grown and not ended:
            yield NOTHING
    if unfinished is None or unfinished:
        raise ModelFailed("The model ended the stream before its answer was finished.")
    yield Usage(prompt_tokens, completion_tokens)


def _finish_reason(reason: str) -> FinishReason:
    if reason in _REASONS:
        return _REASONS[reason]
    raise ModelFailed(f"The model stopped for an unexpected reason: {reason}.")


def _read_logprobs(response: Response, sampling: Sampling) -> dict[int, tuple[TokenLogprob, ...]]:
    """What each answer's new tokens were worth, where the response says so."""
    if "logprobs" not in response:
        return {}
    count = sampling.logprobs or sampling.prompt_logprobs or 0
    documents = (json.loads(document) if document else [] for document in response.texts("logprobs"))
    return {
        index: tuple(_token_logprob(entry, count) for entry in entries or ()) for index, entries in enumerate(documents)
    }


def _token_logprob(entry: dict[str, dict[str, Any]] | None, count: int) -> TokenLogprob:
    """The chosen token stands first in an entry, and is among the `count` likeliest where its rank says so."""
    if not entry:
        return TokenLogprob(None)
    members = list(entry.values())
    likeliest = sorted((member for member in members if member["rank"] <= count), key=lambda member: member["rank"])
    return TokenLogprob(_likelihood(members[0]), tuple(map(_likelihood, likeliest)))


def _likelihood(member: dict[str, Any]) -> Likelihood:
    token = member["decoded_token"] or ""
    data = bytes(member["bytes"]) if "bytes" in member else token.encode()
    # JSON has no infinity, and OpenAI writes this for what cannot be.
    return Likelihood(token, max(member["logprob"], -9999.0), data)
