"""The answers to a chat: https://platform.openai.com/docs/api-reference/chat/object and …/chat-streaming

`reasoning_content` is what a model thinks before it answers, as DeepSeek's and vLLM's servers show it.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.dialects.openai import logprobs as wire_logprobs
from gateway.dialects.openai.sampling import render_usage
from gateway.operations.chat import Answer, CallArguments, CallBegin, ChatEvent, Thought
from gateway.operations.text import Finish, TokenLogprob, Usage


def render(answers: list[Answer], usage: Usage | None, *, logprobs: bool) -> dict[str, Any]:
    """Return the fields of a `chat.completion` that are not known before."""
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": _message(answer),
                "logprobs": wire_logprobs.content(answer.logprobs) if logprobs else None,
                "finish_reason": answer.reason,
            }
            for index, answer in enumerate(answers)
        ],
        **({"usage": render_usage(usage)} if usage else {}),
        "code": 0,
        "message": "success",
    }


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.thought:
        message["reasoning_content"] = answer.thought
    if answer.calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {"id": call_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return message


def call_id() -> str:
    """Return a new id for a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"


class Chunks:
    """Renders events as `chat.completion.chunk`s."""

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
            yield self._chunk(event.index, {"role": "assistant", "content": "", "refusal": None})
        match event:
            case Finish(index, reason):
                yield self._chunk(index, {}, reason)
            case Thought(index, text):
                yield self._chunk(index, {"reasoning_content": text})
            case CallBegin(index, call, name):
                begun = {"index": call, "id": call_id(), "type": "function"}
                yield self._chunk(index, {"tool_calls": [{**begun, "function": {"name": name, "arguments": ""}}]})
            case CallArguments(index, call, text):
                yield self._chunk(index, {"tool_calls": [{"index": call, "function": {"arguments": text}}]})
            case _ if event.text or (self._logprobs and event.logprobs):
                yield self._chunk(event.index, {"content": event.text}, logprobs=event.logprobs)

    def _chunk(
        self, index: int, delta: dict[str, Any], reason: str | None = None, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> bytes:
        shown = wire_logprobs.content(logprobs) if self._logprobs and logprobs else None
        choice = {"index": index, "delta": delta, "logprobs": shown, "finish_reason": reason}
        usage = {"usage": None} if self._include_usage else {}
        return orjson.dumps({**self._head, "choices": [choice], **usage})
