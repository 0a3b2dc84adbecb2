"""Tokens that wait for one another's delivery."""

import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

import pytest

from gateway.errors import ModelFailed
from gateway.operations.text import EMPTY_DELTA, Delta, Finish, Logprob, TextEvent, TokenLogprob, Usage
from gateway.signatures.coalescing import coalesce
from gateway.triton.tensors import InferResponse


@dataclass
class Script:
    """Events, each with whether the next is here already; a failure is raised where it stands."""

    steps: list[tuple[TextEvent | Exception, bool]]
    has_buffered: bool = False
    at: int = 0
    closed: bool = False
    cancelled: bool = False

    async def events(self) -> AsyncGenerator[TextEvent]:
        try:
            for event, more in self.steps:
                self.has_buffered, self.at = more, self.at + 1
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InferResponse:
        raise AssertionError("Events are read through `events`.")

    async def aclose(self) -> None:
        self.cancelled = True


async def coalesced(*steps: tuple[TextEvent, bool]) -> list[TextEvent]:
    script = Script(list(steps))
    return [event async for event in coalesce(script.events(), script)]


async def test_a_delta_does_not_wait_for_later_responses() -> None:
    script = Script([(Delta(0, "a", 1), False), (Delta(0, "b", 1), True), (Delta(0, "c", 1), False)])
    async with aclosing(coalesce(script.events(), script)) as events:
        assert await anext(events) == Delta(0, "a", 1)
        assert await anext(events) == Delta(0, "bc", 2)


async def test_each_answer_has_an_event_of_its_own() -> None:
    assert await coalesced((Delta(0, "a", 1), True), (Delta(1, "x", 2), True), (Delta(0, "b", 3), False)) == [
        Delta(0, "ab", 4),
        Delta(1, "x", 2),
    ]


async def test_a_delta_does_not_wait_behind_an_empty_response() -> None:
    script = Script([(Delta(0, "a", 1), True), (EMPTY_DELTA, False), (Delta(0, "b", 1), False)])
    async with aclosing(coalesce(script.events(), script)) as events:
        assert await anext(events) == Delta(0, "a", 1)
        assert script.at == 2
        assert await anext(events) == Delta(0, "b", 1)


async def test_an_empty_response_does_not_end_coalescing() -> None:
    assert await coalesced((Delta(0, "a", 1), True), (EMPTY_DELTA, True), (Delta(0, "b", 1), False)) == [
        Delta(0, "ab", 2)
    ]


async def test_the_finish_event_follows_its_text() -> None:
    events = await coalesced(
        (Delta(0, "a", 1), True), (Delta(0, "b", 1), True), (Finish(0, "stop"), True), (Usage(3, 2), False)
    )
    assert events == [Delta(0, "ab", 2), Finish(0, "stop"), Usage(3, 2)]


async def test_log_probabilities_stay_in_order() -> None:
    logprobs = [TokenLogprob(Logprob(text, -1.0, text.encode())) for text in "ab"]
    events = await coalesced((Delta(0, "a", 1, (logprobs[0],)), True), (Delta(0, "b", 1, (logprobs[1],)), False))
    assert events == [Delta(0, "ab", 2, (logprobs[0], logprobs[1]))]


async def test_buffered_text_comes_before_a_failure() -> None:
    script = Script([(Delta(0, "a", 1), True), (Delta(0, "b", 1), True), (ModelFailed("broken"), False)])
    received: list[TextEvent] = []
    with pytest.raises(ModelFailed, match="broken"):
        async for event in coalesce(script.events(), script):
            received.append(event)
    assert received == [Delta(0, "ab", 2)]
    assert script.closed


async def test_closing_closes_the_source() -> None:
    script = Script([(Delta(0, "a", 1), False), (Delta(0, "b", 1), False)])
    events = coalesce(script.events(), script)
    await anext(events)
    await events.aclose()
    assert script.closed
    assert script.cancelled


@pytest.mark.parametrize("fault", [KeyError("rank"), IndexError(), TypeError(), struct.error(), RecursionError()])
async def test_unreadable_responses_are_failures_of_the_model(fault: Exception) -> None:
    script = Script([(Delta(0, "a", 1), True), (fault, False)])
    received = []
    with pytest.raises(ModelFailed, match="cannot be read"):
        async for event in coalesce(script.events(), script):
            received.append(event)
    assert received == [Delta(0, "a", 1)]
    assert script.cancelled
