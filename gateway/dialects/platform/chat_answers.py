"""The answers to a chat in the document's shape. What has to be asked for is there only where it was."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.dialects.vocabulary import logprobs as wire_logprobs
from gateway.dialects.vocabulary.chat_answers import delta, message
from gateway.dialects.vocabulary.sampling import render_usage
from gateway.operations.chat import Answer, ChatEvent
from gateway.operations.text import Delta, Finish, TokenLogprob, Usage


def render(head: Mapping[str, Any], answers: list[Answer], usage: Usage | None, *, logprobs: bool) -> bytes:
    """Return the JSON of a whole answer; `head` are the fields known before."""
    choices = [
        {
            "index": index,
            "message": message(answer),
            **({"logprobs": wire_logprobs.content(answer.logprobs)} if logprobs else {}),
            "finish_reason": answer.reason,
        }
        for index, answer in enumerate(answers)
    ]
    counted = {"usage": render_usage(usage)} if usage else {}
    return orjson.dumps({**head, "object": "chat.completion", "choices": choices, **counted})


class Chunks:
    """Renders events as the document's chunks: the role, then what is added, then why the answer ends."""

    def __init__(self, head: Mapping[str, Any], *, include_usage: bool, logprobs: bool) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._begun: set[int] = set()

    def render(self, event: ChatEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunks that `event` becomes: none, one, or two for the first of an answer."""
        if isinstance(event, Usage):
            if self._include_usage:
                yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
            return
        if event.index not in self._begun:
            self._begun.add(event.index)
            yield self._chunk(event.index, {"role": "assistant"})
        if isinstance(event, Finish):
            yield self._chunk(event.index, {}, event.reason)
        elif not isinstance(event, Delta):
            yield self._chunk(event.index, delta(event))
        elif event.text or (self._logprobs and event.logprobs):
            yield self._chunk(event.index, delta(event), logprobs=event.logprobs)

    def _chunk(
        self, index: int, delta: dict[str, Any], reason: str | None = None, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> bytes:
        shown = {"logprobs": wire_logprobs.content(logprobs)} if self._logprobs and logprobs else {}
        choice = {"index": index, "delta": delta, **shown, "finish_reason": reason}
        return orjson.dumps({**self._head, "choices": [choice]})
