"""The codec of texts: prompts to tensors, with one request per answer for models that generate one answer per request.

The signatures of language models give it their functions. `gateway.signatures.chat_codec` and
`gateway.signatures.complete_codec` wrap it.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gateway.errors import GatewayError, RequestTooLarge
from gateway.model_card.card import ModelCard
from gateway.operations.complete import Complete, share_prompt_logprobs, split_answers
from gateway.operations.text import TextEvent
from gateway.prompting.bos_token import strip_bos
from gateway.signatures.call import Call, Events, ModelRequest, Responses
from gateway.signatures.coalescing import coalesce
from gateway.triton.tensors import Tensor

_MAX_TOTAL_BYTES = 256 * 2**20
"""Bytes of prompt and images in all requests of one call together: each request sends all of them."""
_MAX_DIFFERING_BYTES = 16 * 2**20
"""Bytes of the tensors that differ between the requests of one call, each encoded by itself.

A schema of 10 kB in 128 answers takes a tenth of a second.
"""


def _split_alike(request: Complete, card: ModelCard) -> list[Complete]:
    return split_answers(request)


def _never_silent(request: Complete, card: ModelCard) -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCodec:
    """The functions of a signature that carries `Complete`.

    `encode` returns the tensors of a request; raises `UnsupportedOption` for an option that has no tensor.
    `decode` yields the events of the responses: `EMPTY_DELTA` for a response without other events.
    `explain` returns a failure with the caller's field names.
    `carries_answers` returns whether one request can have several answers.
    `split_answers` returns one request per answer, for models whose requests have one answer.
    `silent_tokens` returns how many tokens a model may generate before its first response.
    `retry_request` returns the request to send after a refusal, or None. It is called once, before any response.
    """

    encode: Callable[[Complete, ModelCard], list[Tensor]]
    decode: Callable[[Complete, Responses, ModelCard], AsyncGenerator[TextEvent]]
    explain: Callable[[GatewayError], GatewayError]
    carries_answers: Callable[[ModelCard], bool]
    split_answers: Callable[[Complete, ModelCard], list[Complete]] = _split_alike
    silent_tokens: Callable[[Complete, ModelCard], int] = _never_silent
    retry_request: Callable[[Complete, GatewayError, ModelCard], Complete | None] | None = None

    def num_requests(self, request: Complete, card: ModelCard) -> int:
        """Return how many requests the answers take, see `Codec.num_requests`."""
        return 1 if request.sampling.n == 1 or self.carries_answers(card) else request.sampling.n

    def parts(self, request: Complete, card: ModelCard) -> list[Complete]:
        """Return the requests that a model gets for one: itself, or one for each answer."""
        return [request] if self.num_requests(request, card) == 1 else self.split_answers(request, card)

    def open(self, request: Complete, card: ModelCard) -> Call:
        """Encode a request, see `Codec.open`."""
        structure = request.sampling.structured_outputs
        explain = partial(_explain, self.explain, structure.param if structure else None)
        try:
            parts = self.parts(request, card)
            requests = self._requests(parts, card) if len(parts) > 1 else (self._request(request, card),)
        except GatewayError as error:
            raise explain(error) from None
        return Call(requests, explain)

    def _requests(self, parts: Sequence[Complete], card: ModelCard) -> tuple[ModelRequest, ...]:
        """Encode several requests with one prompt. The tensors that do not differ are made once."""
        first = self._encode(parts[0], card)
        if len(parts) * sum(len(tensor.data) for tensor in first) > _MAX_TOTAL_BYTES:
            raise RequestTooLarge(
                "This model generates one answer per request: prompt and images, times 'n', exceed the limit of "
                f"{_MAX_TOTAL_BYTES} bytes.",
                param="n",
            )
        same = self._encode_options(parts[0], card)
        differing: list[dict[str, Tensor]] = []
        for part in parts:
            own = {} if part == parts[0] else self._encode_options(part, card)
            differing.append({name: tensor for name, tensor in own.items() if tensor != same[name]})
            if len(parts) * sum(len(tensor.data) for tensor in differing[-1].values()) > _MAX_DIFFERING_BYTES:
                raise RequestTooLarge(
                    "This model generates one answer per request: the sampling options and the structured output, "
                    f"times 'n', exceed the limit of {_MAX_DIFFERING_BYTES} bytes.",
                    param="n",
                )
        return tuple(
            self._request(part, card, [own.get(tensor.name, tensor) for tensor in first])
            for part, own in zip(parts, differing, strict=True)
        )

    def _request(self, request: Complete, card: ModelCard, tensors: Sequence[Tensor] | None = None) -> ModelRequest:
        return ModelRequest(
            self._encode(request, card) if tensors is None else tensors,
            partial(self._events, request, card),
            self.silent_tokens(request, card),
            partial(self._retry, request, card) if self.retry_request else None,
        )

    def _encode(self, request: Complete, card: ModelCard) -> list[Tensor]:
        return self.encode(strip_bos(request, card.text), card)

    def _encode_options(self, request: Complete, card: ModelCard) -> Mapping[str, Tensor]:
        """Encode a request without its prompt and images."""
        options_only = replace(request, prompt="", literal_spans=(), images=())
        return {tensor.name: tensor for tensor in self.encode(options_only, card)}

    def _events(self, request: Complete, card: ModelCard, responses: Responses) -> Events:
        events = self.decode(request, responses, card)
        if request.sampling.n > 1 and request.sampling.prompt_logprobs is not None:
            events = share_prompt_logprobs(events, request.sampling.n)
        return coalesce(events, responses)

    def _retry(self, request: Complete, card: ModelCard, error: GatewayError) -> ModelRequest | None:
        assert self.retry_request
        second_request = self.retry_request(request, error, card)
        return None if second_request is None else self._request(second_request, card)


def _explain(
    explain: Callable[[GatewayError], GatewayError], structure_param: str | None, error: GatewayError
) -> GatewayError:
    """Return a failure with the caller's field names. The structured output may come from one of several fields."""
    error = explain(error)
    if error.param == "structured_outputs":
        error.param = structure_param
    return error
