"""Ask for the prompt alone (`max_tokens` 0) where the model always answers: it is asked for a token, which is dropped.

What the engine counted stays: the token was computed, as those are that a stop string hides.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TypeGuard

from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, TextEvent


def is_prompt_only(request: object) -> TypeGuard[Complete]:
    """Whether a request asks for no token of an answer."""
    return isinstance(request, Complete) and request.sampling.max_tokens == 0


def to_one_token(request: Complete) -> Complete:
    """Return the request that such a model is sent."""
    return replace(request, echo=False, sampling=replace(request.sampling, max_tokens=1))


async def drop_completion(request: Complete, events: AsyncGenerator[TextEvent]) -> AsyncGenerator[TextEvent]:
    """Yield what is told of the answers to `asked`: the prompt, where the caller wants it, and their ends."""
    async with aclosing(events):
        async for event in events:
            match event:
                case Delta():
                    pass
                case Finish(index, _):
                    if request.echo and isinstance(request.prompt, str):
                        yield Delta(index, request.prompt)
                    yield Finish(index, "length")
                case _:
                    yield event
