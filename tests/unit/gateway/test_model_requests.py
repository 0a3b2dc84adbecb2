"""Requests to models: one retry after a refusal with a hint, and no reference to sent tensors."""

import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import GatewayError, ModelFailed
from gateway.http.offload import LARGE_BYTES
from gateway.model_card.card import ModelCard
from gateway.models import inference
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, Sampling, TextEvent
from gateway.signatures.call import ModelRequest
from gateway.signatures.text_codec import TextCodec
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import Tensor, string_tensor
from tests.unit.gateway.model_cards import card_of

pytestmark = pytest.mark.asyncio


Script = list[Delta | Finish | GatewayError]


class Sent(list[Tensor]):
    """Tensors whose end can be seen."""


class Scripted:
    """A signature and a server in one, which answers each request with the next script."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.asked: list[int | None] = []
        self.encoded_by: set[str] = set()
        self.codec = TextCodec(
            encode=self.encode,
            decode=self.decode,
            explain=lambda error: error,
            carries_answers=lambda card: False,
            retry_request=self.retry_request,
        )
        config = ModelConfig("m", {}, {}, {}, b"")
        self.model: Any = SimpleNamespace(
            name="m", card=card_of(config), config=config, server=SimpleNamespace(client=self), stop_request=None
        )

    def encode(self, request: Complete, card: ModelCard) -> list[Tensor]:
        self.encoded_by.add(threading.current_thread().name)
        return Sent([string_tensor("text_input", str(request.prompt))])

    def stream(self, *_: Any, **__: Any) -> Any:
        async def nothing() -> None: ...

        return SimpleNamespace(has_buffered=False, aclose=nothing)

    async def decode(
        self, request: Complete, responses: AsyncIterator[Any], card: ModelCard
    ) -> AsyncGenerator[TextEvent]:
        self.asked.append(request.sampling.max_tokens)
        for event in self.scripts.pop(0):
            if isinstance(event, GatewayError):
                raise event
            yield event

    def retry_request(self, request: Complete, error: GatewayError, card: ModelCard) -> Complete | None:
        return Complete(model="m", prompt=request.prompt, sampling=Sampling(max_tokens=5))

    def opened(self) -> Sequence[ModelRequest]:
        return self.codec.open(Complete(model="m", prompt="x"), self.model.card).requests

    def answers(self, requests: Sequence[ModelRequest]) -> AsyncGenerator[Any]:
        return inference.stream_events(self.model, requests, request_id="r", timeout=1)


NO = ModelFailed("No room.")
ANSWER: Script = [Delta(0, "a", 1), Finish(0, "stop")]


async def test_a_request_refused_before_its_first_response_is_retried_once() -> None:
    scripted = Scripted([NO], ANSWER)
    assert [event async for event in scripted.answers(scripted.opened())] == ANSWER
    assert scripted.asked == [None, 5]
    refused: list[list[Script]] = [[[NO], [NO]], [[Delta(0, "a", 1), NO]]]
    for scripts in refused:
        scripted = Scripted(*scripts)
        with pytest.raises(ModelFailed):
            async for _ in scripted.answers(scripted.opened()):
                pass
        assert not scripted.scripts


async def test_sent_tensors_are_released_before_the_response() -> None:
    scripted = Scripted(ANSWER)
    sent = scripted.opened()
    (reference,) = (weakref.ref(request.tensors) for request in sent)
    events = scripted.answers(sent)
    del sent
    await anext(events)
    gc.collect()
    assert reference() is None
    await events.aclose()


@pytest.mark.parametrize(
    ("n", "size", "in_thread"), [(1, LARGE_BYTES - 1, False), (8, 100, False), (8, LARGE_BYTES // 4, True)]
)
async def test_large_repeated_requests_are_serialized_in_a_thread(n: int, size: int, in_thread: bool) -> None:
    scripted = Scripted()
    known: Any = SimpleNamespace(body_bytes=size, is_large=False, caller="c", reservation=None)
    request = Complete(model="m", prompt="x", sampling=Sampling(n=n))
    call = await inference.open_call(scripted.model, scripted.codec, request, known)
    assert len(call.requests) == n
    assert (threading.current_thread().name not in scripted.encoded_by) == in_thread
