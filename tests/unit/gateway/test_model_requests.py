"""How a model is asked: once more after a refusal that says what it would take, and with nothing kept that was sent."""

import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import GatewayError, ModelFailed
from gateway.http.offload import LARGE_BYTES
from gateway.models import inference
from gateway.operations.complete import Complete, split_answers
from gateway.operations.text import Delta, Finish, Sampling
from gateway.triton.tensors import Tensor, string_tensor

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
        self.model: Any = SimpleNamespace(
            signature=self,
            config=SimpleNamespace(name="m", parameters={}),
            server=SimpleNamespace(client=self),
            stop_request=None,
        )

    def split_request(self, request: Complete, config: Any) -> list[Complete]:
        return split_answers(request)

    def encode(self, request: Complete, config: Any) -> list[Tensor]:
        self.encoded_by.add(threading.current_thread().name)
        return [string_tensor("text_input", str(request.prompt))]

    def stream(self, *_: Any, **__: Any) -> Any:
        async def nothing() -> None: ...

        return SimpleNamespace(has_buffered=False, aclose=nothing)

    async def decode(self, request: Complete, responses: AsyncIterator[Any], config: Any) -> AsyncGenerator[Any]:
        self.asked.append(request.sampling.max_tokens)
        for event in self.scripts.pop(0):
            if isinstance(event, GatewayError):
                raise event
            yield event

    def retry_request(self, request: Complete, error: GatewayError, config: Any) -> Complete | None:
        return Complete(model="m", prompt=request.prompt, sampling=Sampling(max_tokens=5))

    def answers(self, sent: Sent) -> AsyncGenerator[Any]:
        question = inference.ModelRequest(Complete(model="m", prompt="x"), sent)
        return inference.stream_events(self.model, [question], request_id="r", timeout=1)


NO = ModelFailed("No room.")
ANSWER: Script = [Delta(0, "a", 1), Finish(0, "stop")]


async def test_it_is_asked_once_more_where_it_refuses_before_it_answers() -> None:
    scripted = Scripted([NO], ANSWER)
    assert [event async for event in scripted.answers(Sent())] == ANSWER
    assert scripted.asked == [None, 5]
    refused: list[list[Script]] = [[[NO], [NO]], [[Delta(0, "a", 1), NO]]]
    for scripts in refused:
        scripted = Scripted(*scripts)
        with pytest.raises(ModelFailed):
            async for _ in scripted.answers(Sent()):
                pass
        assert not scripted.scripts


async def test_what_was_sent_is_not_kept_while_the_answer_comes() -> None:
    sent = Sent()
    seen = weakref.ref(sent)
    events = Scripted(ANSWER).answers(sent)
    del sent
    await anext(events)
    gc.collect()
    assert seen() is None
    await events.aclose()


@pytest.mark.parametrize(
    ("n", "size", "apart"), [(1, LARGE_BYTES - 1, False), (8, 100, False), (8, LARGE_BYTES // 4, True)]
)
async def test_what_is_large_when_it_is_written_many_times_is_written_beside_the_loop(
    n: int, size: int, apart: bool
) -> None:
    scripted = Scripted()
    known: Any = SimpleNamespace(body_bytes=size, is_large=False, caller="c", reservation=None)
    found = await inference.build_requests(
        scripted.model, Complete(model="m", prompt="x", sampling=Sampling(n=n)), known
    )
    assert len(found) == n
    assert (threading.current_thread().name not in scripted.encoded_by) == apart
