"""The tensors of NVIDIA's `tensorrt_llm_bls` and `ensemble`, which run engines of TensorRT-LLM up to 1.2.

https://github.com/NVIDIA/TensorRT-LLM/tree/v1.2.0/triton_backend/all_models/inflight_batcher_llm: the two
`config.pbtxt`, `tensorrt_llm_bls/1/lib/{decode,triton_decoder}.py` and `tensorrt_llm/1/model.py`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.errors import GatewayError, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.text import (
    EMPTY_DELTA,
    Delta,
    Finish,
    FinishReason,
    TextEvent,
    Usage,
)
from gateway.signatures import tensorrt_llm_steps, third_party, third_party_errors
from gateway.signatures.call import Signature
from gateway.signatures.chat_codec import ChatCodec
from gateway.signatures.complete_codec import CompleteCodec
from gateway.signatures.tensorrt_llm_sampling import guided_decoding_tensors, sampling_tensors
from gateway.signatures.text_codec import TextCodec
from gateway.triton.tensors import (
    InferResponse,
    Tensor,
    bool_tensor,
    float32_tensor,
    int32_tensor,
    string_tensor,
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
"""Inputs that are sent to a model that declares them."""

DISTINCTIVE_INPUTS: Mapping[str, str] = {"stream": "BOOL", "max_tokens": "INT32"}
"""A model with this signature has at least one of these inputs."""

_SAMPLED = ("max_tokens", "temperature", "top_p", "top_k", "seed", "min_tokens")
_FLOATS = ("repetition_penalty", "presence_penalty", "frequency_penalty")
_COUNTS = ("return_num_input_tokens", "return_num_output_tokens")


def split_answers(request: Complete, card: ModelCard) -> list[Complete]:
    """Return a request for each answer, for a model that does not carry several in one.

    Each gets a seed and `top_p` of its own, where the model has these inputs (`third_party.one_request_per_answer`).
    """
    return third_party.one_request_per_answer(request, varied={"seed", "top_p"} <= card.config.inputs.keys())


def encode(request: Complete, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request` that the model declares, with the number of dimensions that it declares.

    Raises `UnsupportedOption` for an option that has no tensor, and for a request without `max_tokens` if the model
    requires that input and its card has no default.
    """
    sampling = request.sampling
    has = third_party.declared_inputs(card.config, OPTIONAL_INPUTS)
    # `decode` finds stop strings itself; `n` and structured outputs are checked below.
    carried = {"stop", "n", "structured_outputs", *(has & {*_SAMPLED, *_FLOATS})}
    if card.config.decoupled:
        carried.add("max_tokens")  # `third_party.limit_tokens`
    third_party.reject_unsupported_options(sampling, carried)
    if request.images:
        raise UnsupportedOption("This model does not support images.", param="messages")
    length = third_party.max_answer_tokens(sampling, card.text)
    if length is None and "max_tokens" in has - card.config.optional:
        raise UnsupportedOption(
            "'max_tokens' is required: this model requires it, and has no configured default.",
            param="max_tokens",
        )
    tensors = [
        string_tensor("text_input", third_party.text_prompt(request)),
        *([] if length is None else [int32_tensor("max_tokens", length)]),
        bool_tensor("exclude_input_in_output", True),
        bool_tensor("stream", _streams(request, card)),
        *(bool_tensor(name, True) for name in _COUNTS),
        *sampling_tensors(sampling, has),
        *(float32_tensor(name, value) for name in _FLOATS if (value := getattr(sampling, name)) is not None),
    ]
    if sampling.min_tokens:
        if sampling.stop:
            # The runtime delays only the end-of-sequence token, not stop strings.
            message = "This model does not support 'min_tokens' together with 'stop'."
            raise UnsupportedOption(message, param="min_tokens")
        tensors.append(int32_tensor("min_tokens", sampling.min_tokens))
    if sampling.stop:
        tensors.append(string_tensor("stop_words", *sampling.stop))
    if sampling.n > 1:
        tensors.append(int32_tensor("num_return_sequences", sampling.n))
    if sampling.structured_outputs:
        tensors += guided_decoding_tensors(sampling.structured_outputs, card)
    return third_party.fit_tensors(tensors, card.config)


def _streams(request: Complete, card: ModelCard) -> bool:
    """Return whether to request a stream from the model.

    The postprocessing step decodes the tokens of each response alone, which can yield half a character or a word
    without the space before it. So an answer that the caller wants whole is requested in one response, with two
    exceptions. A model that accumulates tokens decodes all of them for each response: streaming shows that it is alive,
    and lets the gateway end an answer at a stop string that the model missed. For a model without the input
    `max_tokens` the gateway counts the tokens, which needs a stream.
    """
    return card.config.decoupled and (
        not request.non_streaming or _accumulates_tokens(card) or _limits_tokens_here(request, card)
    )


def _limits_tokens_here(request: Complete, card: ModelCard) -> bool:
    return request.sampling.max_tokens is not None and "max_tokens" not in card.config.inputs


def _accumulates_tokens(card: ModelCard) -> bool:
    return card.config.decoupled and card.text.accumulates_tokens


def silent_tokens(request: Complete, card: ModelCard) -> int:
    """Return how many tokens the model may generate before its first response; 0 where it streams."""
    if _streams(request, card):
        return 0
    return third_party.max_answer_tokens(request.sampling, card.text) or 0


def retry_request(request: Complete, error: GatewayError, card: ModelCard) -> Complete | None:
    """Return the request to send after a refusal, see `third_party_errors.retry_request`."""
    return third_party_errors.retry_request(request, error, card.text)


def _supports_multiple_answers(card: ModelCard) -> bool:
    """Return whether one request carries several answers.

    Only the ensemble does: tensorrt_llm_bls declares `num_return_sequences` and never reads it
    (`TritonDecoder.input_names`). Without streaming there is one response, which holds one answer.
    """
    has_tensors = "num_return_sequences" in card.config.inputs and "sequence_index" in card.config.outputs
    return has_tensors and "num_draft_tokens" not in card.config.inputs and card.config.decoupled


def explain(error: GatewayError) -> GatewayError:
    """Return the failure with the caller's field names."""
    return third_party.explain(error)


def decode(request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`, with the reason why an answer ended as far as it can be known (`_reason`).

    tensorrt_llm_bls sends the whole answer so far where it accumulates tokens (`Decoder.postprocess`); otherwise both
    models send what each token adds. Without streaming both send one text. Raises `ModelFailed` where the responses
    end before the first text, and where they hold more answers than were requested.
    """
    events = _read(request, responses, card)
    return (
        third_party.limit_tokens(events, request, echoed=request.echo) if _limits_tokens_here(request, card) else events
    )


async def _read(
    request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[TextEvent]:
    mode = card.text.text_mode or ("cumulative" if _accumulates_tokens(card) else "delta")
    answers = [third_party.AnswerText(mode, request.sampling.stop) for _ in range(request.sampling.n)]
    counted = [0] * len(answers)
    prompt_tokens = 0
    counts = responded = False
    draining = third_party.DRAIN_RESPONSES  # further responses may have the token counts
    async for response in responses:
        index = next(iter(response.int32s("sequence_index")), 0)
        texts = response.bytes_values("text_output")
        if index not in range(len(answers)) or len(texts) != 1:
            raise ModelFailed("The model sent more answers than were requested.")
        tokens = sum(response.int32s("num_output_tokens"))
        prompt_tokens = max(response.int32s("num_input_tokens"), default=prompt_tokens)
        counts = counts or "num_output_tokens" in response
        counted[index] += tokens
        shown = answers[index].feed(texts[0])
        if request.echo and not responded:
            for other in range(len(answers)):
                yield Delta(other, third_party.text_prompt(request))
        responded = True
        yield Delta(index, shown, tokens) if shown or tokens else EMPTY_DELTA
        if all(answer.stopped for answer in answers):
            # TensorRT-LLM matches stop words by their tokens and may miss one: the engine would go on.
            draining -= 1
            if not draining:
                break
    if not responded:
        raise ModelFailed("The model ended the stream before its answer was finished.")
    for index, answer in enumerate(answers):
        if rest := answer.finish():
            yield Delta(index, rest)
        yield Finish(index, _reason(answer.stopped, counted[index] if counts else None, prompt_tokens, request, card))
    if counts:
        yield Usage(prompt_tokens, sum(counted))


def _reason(stopped: bool, tokens: int | None, prompt_tokens: int, request: Complete, card: ModelCard) -> FinishReason:
    """Return the reason why an answer ended, derived from its length: no tensor has the reason.

    `length` if the answer has as many tokens as allowed, or fills the card's `context_length`: the engine silently
    reduces `max_tokens` to what the context leaves. `stop` otherwise.
    """
    length = third_party.max_answer_tokens(request.sampling, card.text)
    if stopped or tokens is None:
        return "stop"
    if length is not None and tokens >= length:
        return "length"
    context = card.text.context_length
    fills = context is not None and prompt_tokens and prompt_tokens + tokens >= context
    return "length" if fills else "stop"


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
    codecs={Chat.operation: ChatCodec(TEXT), Complete.operation: CompleteCodec(TEXT)},
    distinctive_inputs=DISTINCTIVE_INPUTS,
    foreign_prefixes=("sampling_param", "streaming"),
    adds_special_tokens=tensorrt_llm_steps.adds_special_tokens,
    stop_request=tensorrt_llm_steps.stop_request,
)
