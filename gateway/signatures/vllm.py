"""The tensors of Triton's vLLM backend, which `backends/llm` speaks too (docs/architecture.md).

https://github.com/triton-inference-server/vllm_backend/blob/main/src/model.py
"""

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import fields, replace
from itertools import chain

from gateway.errors import GatewayError, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard, StructuredOutputsOption
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.text import EMPTY_DELTA, Delta, Finish, FinishReason, TextEvent, Usage
from gateway.signatures import third_party, vllm_errors, vllm_logprobs
from gateway.signatures.call import Signature
from gateway.signatures.chat_codec import ChatCodec
from gateway.signatures.complete_codec import CompleteCodec
from gateway.signatures.text_codec import TextCodec
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse, Tensor, bool_tensor, int32_tensor, string_tensor

INPUTS: Mapping[str, str] = {"text_input": "BYTES"}
OUTPUTS: Mapping[str, str] = {"text_output": "BYTES"}

OPTIONAL_INPUTS: Mapping[str, str] = {
    "stream": "BOOL",
    "sampling_parameters": "BYTES",
    "exclude_input_in_output": "BOOL",
    "return_finish_reason": "BOOL",
    "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
}
"""Inputs that are sent to a model that declares them."""

DISTINCTIVE_INPUTS: Mapping[str, str] = {"sampling_parameters": "BYTES"}
"""A model with this signature has at least one of these inputs."""

_STRUCTURE_OPTIONS: tuple[StructuredOutputsOption, ...] = ("structured_outputs", "guided_decoding")
"""The backend's name for a structured output: since 25.11, and up to 25.10."""

_ANY_JSON_SCHEMA = {"type": ["object", "array", "string", "number", "boolean", "null"]}

_MAX_TOKENS = 2**31 - 1
"""Tokens of an answer where neither the caller nor the card sets a limit."""

# vLLM ends an answer that repeats itself with a reason of its own, where its `repetition_detection` is on. The clients
# of OpenAI's API know no such reason, and `length` would make some of them ask for the rest.
_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "stop"}
# The vLLM backend writes Python's `str(None)` while an answer grows.
_UNFINISHED = frozenset({"", "None"})


def is_own_backend(card: ModelCard) -> bool:
    """Return whether the model runs in `backends/llm`, the only backend that takes token ids, and not in vLLM.

    `backends/llm` generates several answers to one request, and each of its responses has all of them. A response of
    vLLM has only the answers that grew and does not say which they are: see `ParentRequest.get_outputs` in its
    vllm/v1/engine/parallel_sampling.py. So vLLM gets one request for each answer.
    """
    return _takes_token_ids(card.config)


def _takes_token_ids(config: ModelConfig) -> bool:
    return "token_ids" in config.inputs


def encode(request: Complete, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `UnsupportedOption` for an option that the model has no tensor for, or that vLLM cannot read.
    """
    sampling = request.sampling
    parameters = _given_parameters(request) if is_own_backend(card) else _vllm_parameters(request, card)
    if card.adapter is not None:
        parameters["lora_name"] = card.adapter
    tensors = [
        _prompt(request.prompt, card),
        # Streamed even if the caller wants a whole answer: the responses show that the model is alive.
        bool_tensor("stream", True),
        string_tensor("sampling_parameters", json.dumps(parameters)),
        bool_tensor("exclude_input_in_output", not _echoed_by_model(request)),
        bool_tensor("return_finish_reason", True),
        bool_tensor("return_num_input_tokens", True),
        bool_tensor("return_num_output_tokens", True),
    ]
    if "sampling_parameters" not in card.config.inputs:
        third_party.reject_unsupported_options(sampling, {"max_tokens", "n"})
    if request.literal_spans:
        tensors.append(int32_tensor("literal_spans", *chain.from_iterable(request.literal_spans)))
    if sampling.logprobs is not None or sampling.prompt_logprobs is not None:
        if "return_logprobs" not in card.config.inputs:
            raise UnsupportedOption("This model does not support log probabilities.", param="logprobs")
        if sampling.prompt_logprobs is not None and "token_ids" not in card.config.inputs:
            raise UnsupportedOption("This model does not support log probabilities of the prompt.", param="logprobs")
        tensors.append(bool_tensor("return_logprobs", True))
    if request.images:
        if "image" not in card.config.inputs:
            raise UnsupportedOption("This model does not support images.", param="messages")
        tensors.append(string_tensor("image", *(base64.b64encode(image).decode() for image in request.images)))
    return third_party.fit_tensors(tensors, card.config)


def _prompt(prompt: str | tuple[int, ...], card: ModelCard) -> Tensor:
    if isinstance(prompt, str):
        return string_tensor("text_input", prompt)
    if "token_ids" not in card.config.inputs:
        raise UnsupportedOption("This model requires a text prompt; token ids are not supported.", param="prompt")
    return int32_tensor("token_ids", *prompt)


def _echoed_by_model(request: Complete) -> bool:
    """Return whether the model has to write the prompt before its answer: only it can decode a prompt of token ids.

    The gateway writes a prompt that is text itself, which works with every model.
    """
    return request.echo and not isinstance(request.prompt, str)


def _given_parameters(request: Complete) -> dict[str, object]:
    """Return the sampling parameters that the caller set: a default written here would override the model's own."""
    sampling = request.sampling
    parameters: dict[str, object] = {"skip_special_tokens": False} if request.show_special_tokens else {}
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if value is not None and value != field.default:
            parameters[field.name] = list(value) if isinstance(value, tuple) else value
    if structure := sampling.structured_outputs:
        # The vLLM backend reads it as a string.
        parameters["structured_outputs"] = json.dumps({structure.kind: structure.value})
    return parameters


def _vllm_parameters(request: Complete, card: ModelCard) -> dict[str, object]:
    """Return the same parameters as vLLM's `SamplingParams` take them, through `TritonSamplingParams.from_dict`.

    If vLLM refuses a parameter, the request fails with a message that does not name it. Raises `UnsupportedOption` for
    a parameter that cannot be passed on.
    """
    sampling = request.sampling
    if sampling.logit_bias:
        # Its keys would become strings in JSON, and vLLM compares them with numbers.
        raise UnsupportedOption("This model does not support 'logit_bias'.", param="logit_bias")
    parameters = _given_parameters(replace(request, sampling=replace(sampling, logit_bias=None)))
    # Always sent: without it vLLM stops after 16 tokens, and the backend fails on null. The engine ends an answer where
    # the context ends, however many tokens are allowed (`check_stop` in vllm/v1/core/sched/utils.py).
    given = None if sampling.max_tokens is None else min(sampling.max_tokens, _MAX_TOKENS)
    length = third_party.max_answer_tokens(replace(sampling, max_tokens=given), card.text) or _MAX_TOKENS
    parameters["max_tokens"] = length
    if (sampling.min_tokens or 0) > length:
        raise UnsupportedOption(f"'min_tokens' must be at most {length} for this model.", param="min_tokens")
    if sampling.seed is not None:
        parameters["seed"] = sampling.seed % 2**63  # vLLM takes -1 for no seed
    if sampling.top_k is not None and sampling.top_k <= 0:
        parameters["top_k"] = -1  # every release takes it for "all tokens"
    if sampling.top_p == 0:
        del parameters["top_p"]
        parameters["temperature"] = 0
    if structure := sampling.structured_outputs:
        value = _ANY_JSON_SCHEMA if structure.value is True else structure.value  # vLLM takes no boolean as a schema
        del parameters["structured_outputs"]
        parameters[_structure_option(card)] = json.dumps({structure.kind: value})
    return parameters


def _structure_option(card: ModelCard) -> StructuredOutputsOption:
    """Return the backend's name for a structured output, which changed with 25.11.

    Models declare the input `embedding_request` from 25.11 on. The parameter `structured_outputs` overrides that.
    """
    newer = "embedding_request" in card.config.inputs
    return card.text.structured_outputs_option or _STRUCTURE_OPTIONS[0 if newer else 1]


def explain(error: GatewayError) -> GatewayError:
    """Return the failure with the caller's field names instead of names of tensors.

    Sampling parameters have the same names in both.
    """
    if error.param in ("text_input", "token_ids"):
        error.param = "prompt"
    elif error.param == "image":
        error.param = "messages"
    elif error.param in OPTIONAL_INPUTS or error.param == "literal_spans":
        error.param = None
    return third_party.explain(vllm_errors.explain(error))


def decode(request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`, see `_read`."""
    events = _read(request, responses, card)
    if request.sampling.max_tokens is None or "sampling_parameters" in card.config.inputs:
        return events
    return third_party.limit_tokens(events, request, echoed=0)


async def _read(
    request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`.

    Raises `ModelFailed` if they end before every answer is finished, and for a response without every answer.
    """
    prompt_tokens = completion_tokens = 0
    unfinished: set[int] | None = None
    has_prompt_logprobs = False  # they arrive all at once, with the first tokens of the first answer
    async for response in responses:
        texts = response.strings("text_output")
        if len(texts) != request.sampling.n:
            raise ModelFailed(f"The model sent {len(texts)} answers; {request.sampling.n} were requested.")
        reasons = response.strings("finish_reason")
        tokens = sum(response.uint32s("num_output_tokens"))  # Triton's vLLM backend counts each answer by itself
        prompt_tokens = max(response.uint32s("num_input_tokens"), default=prompt_tokens)
        completion_tokens += tokens
        logprobs = await vllm_logprobs.decode(response, request, 0 if has_prompt_logprobs else prompt_tokens)
        has_prompt_logprobs = has_prompt_logprobs or bool(logprobs.get(0))
        if unfinished is None:
            unfinished = set(range(len(texts)))
            if request.echo and isinstance(request.prompt, str):
                texts = [request.prompt + added for added in texts]
        grown = [index for index, added in enumerate(texts) if added or logprobs.get(index)]
        if tokens and not grown:
            grown = sorted(unfinished)[:1]  # tokens without text yet: half a character, or the end of the sequence
        if not unfinished.issuperset(grown):
            raise ModelFailed("The model continued an answer that it had finished.")
        for index in grown:
            yield Delta(index, texts[index], tokens, logprobs.get(index, ()))
            tokens = 0
        ended = [(i, reason) for i, reason in enumerate(reasons) if reason not in _UNFINISHED and i in unfinished]
        for index, reason in ended:
            unfinished.discard(index)
            yield Finish(index, _finish_reason(reason))
        if not grown and not ended:
            yield EMPTY_DELTA
    if unfinished and "finish_reason" not in card.config.outputs:
        for index in sorted(unfinished):
            yield Finish(index, "stop")  # a model without the tensor `finish_reason` reports no reason
    elif unfinished is None or unfinished:
        raise ModelFailed("The model ended the stream before its answer was finished.")
    if "num_output_tokens" in card.config.outputs:
        yield Usage(prompt_tokens, completion_tokens)


def _finish_reason(reason: str) -> FinishReason:
    if reason in _REASONS:
        return _REASONS[reason]
    raise ModelFailed(f"The model stopped for an unexpected reason: {reason}.")


TEXT = TextCodec(encode=encode, decode=decode, explain=explain, carries_answers=is_own_backend)
SIGNATURE = Signature(
    inputs=INPUTS,
    outputs=OUTPUTS,
    codecs={Chat.operation: ChatCodec(TEXT), Complete.operation: CompleteCodec(TEXT)},
    distinctive_inputs=DISTINCTIVE_INPUTS,
    carries_adapters=True,
    allows_batching=False,
    adds_special_tokens=lambda config, configs: not _takes_token_ids(config),
)
