"""The tensors of NVIDIA's `llmapi/tensorrt_llm`, which runs TensorRT-LLM's LLM API.

https://github.com/NVIDIA/TensorRT-LLM/tree/main/triton_backend/all_models/llmapi/tensorrt_llm: `config.pbtxt`,
`1/model.py` and `1/helpers.py`. Without a batch dimension: the model reads prompts of one dimension only.
"""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.errors import GatewayError, ModelFailed, ModelTimeout, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.text import EMPTY_DELTA, Delta, Finish, FinishReason, TextEvent
from gateway.signatures import third_party, third_party_errors
from gateway.signatures.call import Signature
from gateway.signatures.chat_codec import ChatCodec
from gateway.signatures.complete_codec import CompleteCodec
from gateway.signatures.text_codec import TextCodec
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

_FLOATS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_NUMBERS: Mapping[str, str] = {
    **dict.fromkeys(_FLOATS, "FP32"),
    "max_tokens": "INT32",
    "top_k": "INT32",
    "seed": "UINT64",
}

OPTIONAL_INPUTS: Mapping[str, str] = {
    "streaming": "BOOL",
    **{f"sampling_param_{name}": datatype for name, datatype in _NUMBERS.items()},
    "sampling_param_exclude_input_from_output": "BOOL",
    "return_finish_reason": "BOOL",
    "image_url": "BYTES",
}
"""Inputs that are sent to a model that declares them."""

DISTINCTIVE_INPUTS: Mapping[str, str] = {"streaming": "BOOL"}
"""A model with this signature has at least one of these inputs."""

_DEFAULT_LENGTH = 32
"""Tokens of an answer where neither the caller nor the card sets a limit: the LLM API's `SamplingParams.max_tokens`."""

# The model writes Python's `str(None)` while an answer grows.
_UNFINISHED = frozenset({"", "None"})
_IMAGE_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


def split_answers(request: Complete, card: ModelCard) -> list[Complete]:
    """Return a request for each answer: the model gives one at a time."""
    varied = {"sampling_param_seed", "sampling_param_top_p"} <= card.config.inputs.keys()
    return third_party.one_request_per_answer(request, varied=varied)


def encode(request: Complete, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request` that the model declares.

    Stop strings are not sent: the model passes the tensor `sampling_param_stop` to its tokenizer as bytes, which
    tokenizers refuse. `decode` cuts the answer, and closing the stream makes the model stop. Raises `UnsupportedOption`
    for an option that the tensors cannot carry.
    """
    sampling = request.sampling
    has = third_party.declared_inputs(card.config, OPTIONAL_INPUTS)
    third_party.reject_unsupported_options(
        sampling, {"stop", *(name for name in _NUMBERS if f"sampling_param_{name}" in has)}
    )
    tensors = [
        string_tensor("text_input", third_party.text_prompt(request)),
        bool_tensor("streaming", _streams(request, card)),
        bool_tensor("sampling_param_exclude_input_from_output", True),
        bool_tensor("return_finish_reason", True),
        *(
            float32_tensor(f"sampling_param_{name}", value)
            for name in _FLOATS
            if (value := getattr(sampling, name)) is not None
        ),
    ]
    if length := third_party.max_answer_tokens(sampling, card.text):
        tensors.append(int32_tensor("sampling_param_max_tokens", length))
    if sampling.top_k is not None:
        tensors.append(int32_tensor("sampling_param_top_k", max(sampling.top_k, 0)))
    if sampling.seed is not None:
        tensors.append(uint64_tensor("sampling_param_seed", sampling.seed % 2**64))
    if request.images:
        if "image_url" not in has:
            raise UnsupportedOption("This model does not support images.", param="messages")
        tensors.append(string_tensor("image_url", *map(_data_url, request.images)))
    return third_party.fit_tensors(tensors, card.config)


def _streams(request: Complete, card: ModelCard) -> bool:
    """Return whether to request a stream from the model.

    An answer that the caller wants whole needs a stream only if a stop string may end it. Responses to a short answer
    may not show if they repeat the text so far (`third_party.AnswerText`).
    """
    return card.config.decoupled and (not request.non_streaming or bool(request.sampling.stop))


def silent_tokens(request: Complete, card: ModelCard) -> int:
    """Return how many tokens the model may generate before its first response; 0 where it streams."""
    if _streams(request, card):
        return 0
    return third_party.max_answer_tokens(request.sampling, card.text) or _DEFAULT_LENGTH


def retry_request(request: Complete, error: GatewayError, card: ModelCard) -> Complete | None:
    """Return the request to send after a refusal, see `third_party_errors.retry_request`.

    Where prompt and `max_tokens` together exceed the context, an engine of TensorRT behind the LLM API refuses the
    request; the PyTorch backend shortens the answer.
    """
    return third_party_errors.retry_request(request, error, card.text)


def _data_url(image: bytes) -> str:
    kind = next((kind for magic, kind in _IMAGE_MAGIC.items() if image.startswith(magic)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def explain(error: GatewayError) -> GatewayError:
    """Return the failure with the caller's field names."""
    return third_party.explain(error)


async def decode(
    request: Complete, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[TextEvent]:
    """Yield the events of `responses`. No tensor has counts, so there is no `Usage`.

    The published model sends the whole answer so far in each response; models derived from it may send what was added.
    The parameter `text` says which; without it, the texts show it (`third_party.AnswerText`).

    Raises `ModelFailed` if the responses end before the answer is finished or the server cancelled it, and
    `ModelTimeout` if the server ended it after its own timeout.
    """
    answer = third_party.AnswerText(card.text.text_mode, request.sampling.stop)
    responded = False
    async for response in responses:
        texts, reasons = response.bytes_values("text_output"), response.strings("finish_reason")
        if len(texts) != 1:
            raise ModelFailed(f"The model sent {len(texts)} answers; one was requested.")
        if request.echo and not responded:
            yield Delta(0, third_party.text_prompt(request))
        responded = True
        shown = answer.feed(texts[0])
        yield Delta(0, shown) if shown else EMPTY_DELTA
        reason = next(iter(reasons), "")
        if reason in _UNFINISHED and not answer.stopped:
            continue
        finish: FinishReason = "stop" if answer.stopped else _finish_reason(reason)
        if rest := answer.finish():
            yield Delta(0, rest)
        yield Finish(0, "stop" if answer.stopped else finish)
        if reason not in _UNFINISHED:
            async for _ in responses:  # read up to the final flag, so that Triton releases the stream
                pass
        return
    if not responded or "finish_reason" in card.config.outputs:
        raise ModelFailed("The model ended the stream before its answer was finished.")
    if rest := answer.finish():
        yield Delta(0, rest)
    yield Finish(0, "stop")  # a model without the tensor `finish_reason` reports no reason


def _finish_reason(reason: str) -> FinishReason:
    match reason:
        case "stop" | "length":
            return reason
        case "timeout":
            raise ModelTimeout("The model's server cancelled the answer because it took too long.")
        case "cancelled":
            raise ModelFailed("The answer was cancelled in the model's server.")
    raise ModelFailed(f"The model stopped for an unexpected reason: {reason}.")


TEXT = TextCodec(
    encode=encode,
    decode=decode,
    explain=explain,
    carries_answers=lambda card: False,
    split_answers=split_answers,
    silent_tokens=silent_tokens,
    retry_request=retry_request,
)
SIGNATURE = Signature(
    inputs=INPUTS,
    outputs=OUTPUTS,
    codecs={Chat.operation: ChatCodec(TEXT), Complete.operation: CompleteCodec(TEXT)},
    distinctive_inputs=DISTINCTIVE_INPUTS,
    allows_batching=False,
    adds_special_tokens=lambda config, configs: True,
)
