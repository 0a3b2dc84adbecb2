"""What answers to a chat consist of: https://platform.openai.com/docs/api-reference/chat/object and …/chat-streaming

`reasoning_content` is what a model thinks before it answers, as DeepSeek's and vLLM's servers show it.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.dialects.vocabulary import logprobs as wire_logprobs
from gateway.dialects.vocabulary.sampling import render_usage
from gateway.operations.chat import Answer, CallArguments, CallBegin, ChatEvent, Thought
from gateway.operations.text import Delta, Finish, TokenLogprob, Usage


def render(answers: list[Answer], usage: Usage | None, *, logprobs: bool, nulls: bool) -> dict[str, Any]:
    """Return the fields of a `chat.completion` that are not known before.

    `nulls`: what was not asked for, or is never there, is null, as OpenAI has it; otherwise it is left out.
    """
    choices = []
    for index, answer in enumerate(answers):
        said = message(answer)
        choice: dict[str, Any] = {"index": index, "message": {**said, "refusal": None} if nulls else said}
        if logprobs or nulls:
            choice["logprobs"] = wire_logprobs.content(answer.logprobs) if logprobs else None
        choices.append({**choice, "finish_reason": answer.reason})
    counted = {"usage": render_usage(usage)} if usage else {}
    return {"object": "chat.completion", "choices": choices, **counted}


class Chunks:
    """Renders events as `chat.completion.chunk`s: the role, then what is added, then why the answer ends."""

    def __init__(self, head: Mapping[str, Any], *, include_usage: bool, logprobs: bool, nulls: bool) -> None:
        """`nulls` is that of `render`."""
        self._head = {**head, "object": "chat.completion.chunk"}
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._role: dict[str, Any] = {"role": "assistant"}
        if nulls:
            self._role |= {"content": "", "refusal": None}
        self._without_logprobs = {"logprobs": None} if nulls else {}
        self._without_usage = {"usage": None} if nulls and include_usage else {}
        self._begun: set[int] = set()

    def render(self, event: ChatEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunks that `event` becomes: none, one, or two for the first of an answer."""
        if isinstance(event, Usage):
            if self._include_usage:
                yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
            return
        if event.index not in self._begun:
            self._begun.add(event.index)
            yield self._chunk(event.index, self._role)
        if isinstance(event, Finish):
            yield self._chunk(event.index, {}, event.reason)
        elif not isinstance(event, Delta):
            yield self._chunk(event.index, delta(event))
        elif event.text or (self._logprobs and event.logprobs):
            yield self._chunk(event.index, delta(event), logprobs=event.logprobs)

    def _chunk(
        self, index: int, delta: Mapping[str, Any], reason: str | None = None, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> bytes:
        shown: Mapping[str, Any] = self._without_logprobs
        if self._logprobs and logprobs:
            shown = {"logprobs": wire_logprobs.content(logprobs)}
        choice = {"index": index, "delta": delta, **shown, "finish_reason": reason}
        return orjson.dumps({**self._head, "choices": [choice], **self._without_usage})


def message(answer: Answer) -> dict[str, Any]:
    """Return the message of a whole answer."""
    said: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.thought:
        said["reasoning_content"] = answer.thought
    if answer.calls:
        said["content"] = answer.text or None
        said["tool_calls"] = [
            {"id": _call_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return said


def delta(event: Delta | Thought | CallBegin | CallArguments) -> dict[str, Any]:
    """Return the `delta` of a chunk that tells of `event`."""
    match event:
        case Delta():
            return {"content": event.text}
        case Thought(_, text):
            return {"reasoning_content": text}
        case CallBegin(_, call, name):
            begun = {"index": call, "id": _call_id(), "type": "function"}
            return {"tool_calls": [{**begun, "function": {"name": name, "arguments": ""}}]}
        case CallArguments(_, call, text):
            return {"tool_calls": [{"index": call, "function": {"arguments": text}}]}


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
