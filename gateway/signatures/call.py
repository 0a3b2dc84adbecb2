"""The interface of signatures: a codec for each operation, which turns a request into a `Call`.

A call holds the tensors to send and reads the responses. It knows no connection: `gateway.models.inference` sends it.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import structlog

from gateway.errors import GatewayError, ModelFailed
from gateway.model_card.card import ModelCard
from gateway.triton.client import StopRequest
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse, Tensor

Events: TypeAlias = AsyncGenerator[Any]
"""The events of an operation (`gateway.operations`), while responses arrive."""


class Responses(Protocol):
    """The responses to one request, such as `gateway.triton.client.ResponseStream`."""

    @property
    def has_buffered(self) -> bool:
        """True if the next response has arrived already."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> InferResponse: ...

    async def aclose(self) -> None:
        """Cancel the request."""
        ...


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model."""

    tensors: Sequence[Tensor]
    events: Callable[[Responses], Events]
    """Reads the responses; closing the iterator closes them."""
    silent_tokens: int = 0
    """Tokens that the model may generate before its first response."""
    retry: "Callable[[GatewayError], ModelRequest | None] | None" = None
    """Returns the request to send after a refusal, once; None: every refusal is final."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request of an operation to one model: the model gets one request, one for each answer, or a sequence."""

    requests: tuple[ModelRequest, ...]
    """Requests that are sent at the same time. Empty: there is a `sequence`."""
    explain: Callable[[GatewayError], GatewayError]
    """Returns a failure of the model with the caller's field names."""
    read: Callable[[Any], Iterable[Any]] | None = None
    """Turns an event of the model into those that the caller sees; None: they are the same.

    Metrics count the events of the model, which have the number of tokens.
    """
    sequence: AsyncGenerator[ModelRequest] | None = None
    """Requests that are sent one after another: the next one is made when all events of the last have been read."""


def rename_params(names: Mapping[str, str]) -> Callable[[GatewayError], GatewayError]:
    """Return the explanation of failures that replaces a tensor in `error.param` by the caller's field.

    `names` are the fields, by the tensors that have other names.
    """

    def explain(error: GatewayError) -> GatewayError:
        if error.param:
            error.param = names.get(error.param, error.param)
        return error

    return explain


class Codec(Protocol):
    """Encodes the requests of one operation as tensors of a signature, and decodes the responses."""

    def num_requests(self, request: Any, card: ModelCard) -> int:
        """Return how many requests `open` makes, without any work on their contents."""
        ...

    def open(self, request: Any, card: ModelCard) -> Call:
        """Encode a request.

        Raises a `GatewayError` with the caller's field names: `UnsupportedOption` for an option that has no tensor,
        `RequestTooLarge` if several requests together are too large.
        """
        ...


def _no_special_tokens(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> bool:
    return False


def _no_stop_request(step: ModelConfig) -> StopRequest | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A set of tensors, and the operations that it carries. `gateway.signatures.registry` lists them."""

    inputs: Mapping[str, str]
    """The input tensors that a model must have, with their datatypes."""
    outputs: Mapping[str, str]
    codecs: Mapping[str, Codec]
    """By the name of the operation."""
    distinctive_inputs: Mapping[str, str] = field(default_factory=dict)
    """Input tensors that identify the signature: a model has at least one of them. Empty: never recognised."""
    foreign_prefixes: tuple[str, ...] = ()
    """Prefixes of input names that only models of other signatures have."""
    carries_adapters: bool = False
    """True: a request can name a LoRA adapter of the model."""
    allows_batching: bool = True
    """False: the tensors have no batch dimension."""
    adds_special_tokens: Callable[[ModelConfig, Mapping[str, ModelConfig]], bool] = _no_special_tokens
    """Returns whether the backend of a model adds special tokens when it tokenises prompts.

    Called with the configuration of the model, and those of all models of its server by name.
    """
    stop_request: Callable[[ModelConfig], StopRequest | None] = _no_stop_request
    """Returns the request that stops a request at this step of an ensemble; None if the step needs none."""


@dataclass(frozen=True, slots=True)
class SingleRequestCodec:
    """A codec made of plain functions, for an operation that takes one request to the model."""

    encode: Callable[[Any, ModelCard], list[Tensor]]
    decode: Callable[[Any, Responses, ModelCard], Events]
    explain: Callable[[GatewayError], GatewayError]

    def num_requests(self, request: Any, card: ModelCard) -> int:
        """Return 1."""
        return 1

    def open(self, request: Any, card: ModelCard) -> Call:
        """Encode a request, see `Codec.open`."""
        try:
            tensors = self.encode(request, card)
        except GatewayError as error:
            raise self.explain(error) from None

        def events(responses: Responses) -> Events:
            return read_responses(self.decode(request, responses, card), responses)

        return Call((ModelRequest(tensors, events),), self.explain)


async def read_responses(events: Events, responses: Responses) -> Events:
    """Yield `events`, which are read from `responses`. Both are closed at the end.

    Raises `ModelFailed` for every exception that is no `GatewayError`: a response that cannot be read is a failure of
    the model, not of the gateway.
    """
    async with aclosing(responses), aclosing(events):
        try:
            async for event in events:
                yield event
        except GatewayError:
            raise
        except Exception:
            raise unreadable_response() from None


def unreadable_response() -> ModelFailed:
    """Log the exception that is being handled, and return the failure to raise instead."""
    structlog.get_logger("gateway").exception("response unreadable")
    return ModelFailed("The model's response cannot be read.")
