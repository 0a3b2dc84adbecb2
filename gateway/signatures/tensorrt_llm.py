"""The tensors of NVIDIA's `tensorrt_llm_bls` and `ensemble`, which run engines of TensorRT-LLM up to 1.2.

https://github.com/NVIDIA/TensorRT-LLM/tree/v1.2.0/triton_backend/all_models/inflight_batcher_llm: the two
`config.pbtxt`, `tensorrt_llm_bls/1/lib/{decode,triton_decoder}.py` and `tensorrt_llm/1/model.py`.
"""

import json
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from gateway.errors import GatewayError, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard, tokenizes_without_special_tokens
from gateway.operations.complete import Complete
from gateway.operations.text import (
    EMPTY_DELTA,
    Delta,
    Finish,
    FinishReason,
    Sampling,
    StructuredOutput,
    TextEvent,
    Usage,
)
from gateway.signatures import tensorrt_llm_stop, third_party, third_party_errors
from gateway.signatures.call import Signature
from gateway.signatures.chat_codec import ChatCodec
from gateway.signatures.prompt_only import CompleteCodec
from gateway.signatures.text_codec import TextCodec
from gateway.triton.client import ModelConfig
from gateway.triton.tensors import (
    InferResponse,
    Tensor,
    bool_tensor,
    float32_tensor,
    int32_tensor,
    string_tensor,
    uint64_tensor,
)

INPUTS: Mapping[str, str] = {"text_input": "BYTES"}
OUTPUTS: Mapping[str, str] = {"text_output": "BYTES"}

OPTIONAL_INPUTS: Mapping[str, str] = {
    "max_tokens": "INT32",
    "stop_words": "BYTES",
    "exclude_input_in_output": "BOOL",
    "top_k": "INT32",
    "top_p": "FP32",
    "temperature": "FP32",
    "repetition_penalty": "FP32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "min_tokens": "INT32",
    "seed": "UINT64",
    "stream": "BOOL",
    "num_return_sequences": "INT32",
    "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
"""Inputs that are sent where a model has them."""

DISTINCTIVE_INPUTS: Mapping[str, str] = {"stream": "BOOL", "max_tokens": "INT32"}
"""Of these a model has at least one that is of this layout."""

_SAMPLED = ("max_tokens", "temperature", "top_p", "top_k", "seed", "min_tokens")
_FLOATS = ("repetition_penalty", "presence_penalty", "frequency_penalty")
_COUNTS = ("return_num_input_tokens", "return_num_output_tokens")


def split_answers(request: Complete, card: ModelCard) -> list[Complete]:
    """Return a request for each answer, for a model that does not carry several in one."""
    return third_party.one_request_per_answer(request, varied={"seed", "top_p"} <= card.config.inputs.keys())


def encode(request: Complete, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`, of those that the model has, in its shapes.

    Raises `UnsupportedOption` for what they cannot carry, and for a request without `max_tokens` where the model
    requires it and nothing says how long an answer may be.
    """
    sampling = request.sampling
    has = third_party.declared_inputs(card.config, OPTIONAL_INPUTS)
    # Stop strings are found here as well, answers told apart and structures guided where `_several` and `_guide` can.
    carried = {"stop", "n", "structured_outputs", *(has & {*_SAMPLED, *_FLOATS})}
    if card.config.decoupled:
        carried.add("max_tokens")  # `foreign.limited`
    third_party.reject_unsupported_options(sampling, carried)
    if request.images:
        raise UnsupportedOption("How this model is served cannot carry pictures.", param="messages")
    length = third_party.max_answer_tokens(sampling, card.text)
    if length is None and "max_tokens" in has - card.config.optional:
        raise UnsupportedOption(
            "This model needs 'max_tokens': nobody has told the gateway how long its answers may be.",
            param="max_tokens",
        )
    tensors = [
        string_tensor("text_input", third_party.text_prompt(request)),
        *([] if length is None else [int32_tensor("max_tokens", length)]),
        bool_tensor("exclude_input_in_output", True),
        bool_tensor("stream", _streams(request, card)),
        *(bool_tensor(name, True) for name in _COUNTS),
        *_sampling_tensors(sampling, has),
        *(float32_tensor(name, value) for name in _FLOATS if (value := getattr(sampling, name)) is not None),
    ]
    if sampling.min_tokens:
        if sampling.stop:
            # The runtime holds back the end of the sequence alone.
            message = "How this model is served cannot hold 'stop' back until 'min_tokens' have come."
            raise UnsupportedOption(message, param="min_tokens")
        tensors.append(int32_tensor("min_tokens", sampling.min_tokens))
    if sampling.stop:
        tensors.append(string_tensor("stop_words", *sampling.stop))
    if sampling.n > 1:
        tensors.append(int32_tensor("num_return_sequences", sampling.n))
    if sampling.structured_outputs:
        tensors += _guided_decoding_tensors(sampling.structured_outputs, card)
    return third_party.fit_tensors(tensors, card.config)


def _streams(request: Complete, card: ModelCard) -> bool:
    """Whether the model is asked for pieces.

    The steps behind it make text of what each response holds alone: of a piece, half a character and a word without the
    space before it. Nobody needs pieces of an answer that is read whole, unless the model puts all tokens together
    again for each (`accumulate_tokens`): then they show that it lives, and a stop string that it overhears ends it. Of
    a model that cannot be told how long an answer may be, pieces are counted.
    """
    return card.config.decoupled and (
        not request.non_streaming or _accumulates_tokens(card) or _limits_tokens_here(request, card)
    )


def _limits_tokens_here(request: Complete, card: ModelCard) -> bool:
    return request.sampling.max_tokens is not None and "max_tokens" not in card.config.inputs


def _accumulates_tokens(card: ModelCard) -> bool:
    return card.config.decoupled and card.text.accumulates_tokens


def silent_tokens(request: Complete, card: ModelCard) -> int:
    """How many tokens the model may be silent for."""
    if _streams(request, card):
        return 0
    return third_party.max_answer_tokens(request.sampling, card.text) or 0


def retry_request(request: Complete, error: GatewayError, card: ModelCard) -> Complete | None:
    """What to ask instead of what was refused, see `refusals.instead`."""
    return third_party_errors.retry_request(request, error, card.text)


def _sampling_tensors(sampling: Sampling, has: frozenset[str]) -> list[Tensor]:
    """How the next token is chosen.

    The runtime's own defaults are not those of any OpenAI server: without `top_k` and `top_p` it takes the likeliest
    token whatever the temperature, and without a seed it takes the same one, 0, for every request
    (cpp/include/tensorrt_llm/layers/defaultDecodingParams.h).
    """
    if sampling.temperature == 0:
        return (
            [int32_tensor("top_k", 1), float32_tensor("temperature", 1.0)]
            if "top_k" in has
            else [float32_tensor("temperature", 0.0)]
        )
    tensors = []
    if sampling.temperature is not None:
        tensors.append(float32_tensor("temperature", sampling.temperature))
    if sampling.top_k is not None:
        tensors.append(int32_tensor("top_k", max(sampling.top_k, 0)))
    if sampling.top_p is not None:
        tensors.append(float32_tensor("top_p", sampling.top_p))
    elif (tensors and not (sampling.top_k or 0) > 0) or sampling.n > 1:
        tensors.append(float32_tensor("top_p", 1.0))
    if sampling.seed is not None:
        tensors.append(uint64_tensor("seed", sampling.seed % 2**64))
    elif tensors:
        tensors.append(uint64_tensor("seed", secrets.randbits(63)))
    return tensors


def _supports_multiple_answers(card: ModelCard) -> bool:
    """Whether a request carries several answers. Only the ensemble does: tensorrt_llm_bls declares
    `num_return_sequences` and never reads it (`TritonDecoder.input_names`). Without streams there is one response, and
    room in it for one answer.
    """
    told_apart = "num_return_sequences" in card.config.inputs and "sequence_index" in card.config.outputs
    return told_apart and "num_draft_tokens" not in card.config.inputs and card.config.decoupled


def _guided_decoding_tensors(structure: StructuredOutput, card: ModelCard) -> list[Tensor]:
    """https://github.com/triton-inference-server/tensorrtllm_backend/blob/main/docs/guided_decoding.md"""
    if "guided_decoding_guide" not in card.config.inputs:
        third_party.reject_unsupported_options(Sampling(structured_outputs=structure), ())
    guide: Any = structure.value
    match structure.kind:
        case "json" if guide is True:
            return [string_tensor("guided_decoding_guide_type", "json")]
        case "json":
            kind, guide = "json_schema", json.dumps(guide)
        case "choice":
            kind, guide = "regex", "|".join(re.sub(r"([\\.^$|?*+()\[\]{}])", r"\\\1", word) for word in guide)
        case "regex":
            kind = "regex"
        case _:
            kind = "ebnf_grammar"
    return [string_tensor("guided_decoding_guide_type", kind), string_tensor("guided_decoding_guide", guide)]


def explain(error: GatewayError) -> GatewayError:
    """Put a failure in the caller's terms."""
    return third_party.explain(error)


def decode(request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`. Why an answer ended is told as far as it can be known, see `_reason`.

    tensorrt_llm_bls sends the whole answer so far where it accumulates tokens (`Decoder.postprocess`), else, as the
    ensemble does, what each token adds. Asked for no pieces both send one text.
    """
    events = _read(request, responses, card)
    return (
        third_party.limit_tokens(events, request, echoed=request.echo) if _limits_tokens_here(request, card) else events
    )


async def _read(
    request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[TextEvent]:
    grows = card.text.text_mode or ("cumulative" if _accumulates_tokens(card) else "delta")
    answers = [third_party.AnswerText(grows, request.sampling.stop) for _ in range(request.sampling.n)]
    counted = [0] * len(answers)
    prompt_tokens = 0
    counts = heard = False
    draining = third_party.DRAIN_RESPONSES  # for the counts
    async for response in responses:
        index = next(iter(response.int32s("sequence_index")), 0)
        texts = response.bytes_values("text_output")
        if index not in range(len(answers)) or len(texts) != 1:
            raise ModelFailed("The model sent more answers than were asked for.")
        tokens = sum(response.int32s("num_output_tokens"))
        prompt_tokens = max(response.int32s("num_input_tokens"), default=prompt_tokens)
        counts = counts or "num_output_tokens" in response
        counted[index] += tokens
        shown = answers[index].feed(texts[0])
        if request.echo and not heard:
            for other in range(len(answers)):
                yield Delta(other, third_party.text_prompt(request))
        heard = True
        yield Delta(index, shown, tokens) if shown or tokens else EMPTY_DELTA
        if all(answer.stopped for answer in answers):
            # Stop words are matched by tokens there, and may never match.
            draining -= 1
            if not draining:
                break
    if not heard:
        raise ModelFailed("The model ended the stream before its answer was finished.")
    for index, answer in enumerate(answers):
        if rest := answer.finish():
            yield Delta(index, rest)
        yield Finish(index, _reason(answer.stopped, counted[index] if counts else None, prompt_tokens, request, card))
    if counts:
        yield Usage(prompt_tokens, sum(counted))


def _reason(stopped: bool, tokens: int | None, prompt_tokens: int, request: Complete, card: ModelCard) -> FinishReason:
    """Why an answer ended, as far as it can be known: the layout has no word for it.

    As many tokens as were allowed are `length`, and so are those that fill a known `context_length`: the engine
    shortens `max_tokens` silently where it has no more room. Anything else is taken for the model's own end.
    """
    length = third_party.max_answer_tokens(request.sampling, card.text)
    if stopped or tokens is None:
        return "stop"
    if length is not None and tokens >= length:
        return "length"
    room = card.text.context_length
    return "length" if room is not None and prompt_tokens and prompt_tokens + tokens >= room else "stop"


_PREPROCESSING = "preprocessing"
"""The model that tensorrt_llm_bls asks for the tokens of a prompt (inflight_batcher_llm/preprocessing/1/model.py)."""


def adds_special_tokens(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> bool:
    """Return whether the model that tokenises its prompts adds special tokens, as it does unless it is told not to.

    `configs` are the models of its server, by name.
    """
    steps = (configs[name] for name in config.steps or (_PREPROCESSING,) if name in configs)
    return not any(tokenizes_without_special_tokens(step) for step in steps)


TEXT = TextCodec(
    encode=encode,
    decode=decode,
    explain=explain,
    carries_answers=_supports_multiple_answers,
    split_answers=split_answers,
    silent_tokens=silent_tokens,
    retry_request=retry_request,
)
SIGNATURE = Signature(
    inputs=INPUTS,
    outputs=OUTPUTS,
    codecs={"chat": ChatCodec(TEXT), "complete": CompleteCodec(TEXT)},
    distinctive_inputs=DISTINCTIVE_INPUTS,
    foreign_prefixes=("sampling_param", "streaming"),
    adds_special_tokens=adds_special_tokens,
    stop_request=tensorrt_llm_stop.stop_request,
)
