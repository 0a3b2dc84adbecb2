"""Rendering of completions: https://platform.openai.com/docs/api-reference/completions/object"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson

from gateway.dialects.openai.wire.logprobs import CompletionLogprobsRenderer
from gateway.dialects.openai.wire.sampling import render_usage
from gateway.operations.complete import Complete, Completion
from gateway.operations.text import Delta, Finish, TextEvent, TokenLogprob

_LOGPROBS_PER_YIELD = 500
"""Tokens whose log probabilities are rendered before the event loop runs others. With 20 alternatives each: 5 ms."""


async def split_logprobs(events: AsyncGenerator[TextEvent]) -> AsyncGenerator[TextEvent]:
    """Yield the same events, with a delta of many tokens split so that each part is rendered in a few milliseconds."""
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, Delta) or len(event.logprobs) <= _LOGPROBS_PER_YIELD:
                yield event
                continue
            yield replace(event, logprobs=event.logprobs[:_LOGPROBS_PER_YIELD])
            for at in range(_LOGPROBS_PER_YIELD, len(event.logprobs), _LOGPROBS_PER_YIELD):
                await asyncio.sleep(0)
                yield Delta(event.index, "", 0, event.logprobs[at : at + _LOGPROBS_PER_YIELD])


class ChoiceRenderer:
    """Renders the choices of one response, whole or in parts. It counts the text offsets of each choice."""

    def __init__(self, operations: Sequence[Complete], *, logprobs: bool) -> None:
        """`operations` has one for each prompt; choice j of prompt i has the index i * n + j."""
        self._operations = operations
        self._logprobs = logprobs
        self._offsets: dict[int, CompletionLogprobsRenderer] = {}

    def render(self, index: int, text: str, logprobs: Iterable[TokenLogprob], reason: str | None) -> dict[str, Any]:
        """Return one part of choice `index`: text, log probabilities, and the finish reason of the last part."""
        shown = None
        tokens = tuple(logprobs)
        if self._logprobs and tokens:
            if (offsets := self._offsets.get(index)) is None:
                operation = self._operations[index // self._operations[0].sampling.n]
                prompt = operation.prompt if operation.echo and isinstance(operation.prompt, str) else None
                offsets = self._offsets[index] = CompletionLogprobsRenderer(prompt)
            shown = offsets.render(tokens)
        return {"text": text, "index": index, "logprobs": shown, "finish_reason": reason}

    async def whole(self, index: int, answer: Completion) -> orjson.Fragment:
        """Return the JSON of a whole choice. The event loop runs others between parts of it."""
        tokens = answer.logprobs
        choice = self.render(index, answer.text, tokens[:_LOGPROBS_PER_YIELD], answer.finish_reason)
        for at in range(_LOGPROBS_PER_YIELD, len(tokens) if choice["logprobs"] else 0, _LOGPROBS_PER_YIELD):
            await asyncio.sleep(0)
            more = self.render(index, "", tokens[at : at + _LOGPROBS_PER_YIELD], None)["logprobs"]
            for name, values in more.items():
                choice["logprobs"][name] += values
        return orjson.Fragment(orjson.dumps(choice))


class CompletionChunkRenderer:
    """Renders events as chunks of a `text_completion`."""

    def __init__(self, head: Mapping[str, Any], choices: ChoiceRenderer, *, include_usage: bool) -> None:
        self._head = head
        self._choices = choices
        self._include_usage = include_usage

    def render(self, event: TextEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunk for `event`: none or one."""
        usage: dict[str, Any] = {"usage": None} if self._include_usage else {}
        if isinstance(event, Finish):
            choice = self._choices.render(event.index, "", (), event.finish_reason)
            yield orjson.dumps({**self._head, "choices": [choice], **usage})
        elif isinstance(event, Delta):
            if event.text or event.logprobs:
                choice = self._choices.render(event.index, event.text, event.logprobs, None)
                yield orjson.dumps({**self._head, "choices": [choice], **usage})
        elif self._include_usage:
            yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
