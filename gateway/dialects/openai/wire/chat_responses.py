"""Chat responses, whole and streamed: https://platform.openai.com/docs/api-reference/chat/object and …/chat-streaming

`reasoning_content` is the model's reasoning before its answer, a field of DeepSeek's and vLLM's servers.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.dialects.openai.wire import logprobs as wire_logprobs
from gateway.dialects.openai.wire.sampling import render_usage
from gateway.operations.chat import Answer, ChatEvent, ReasoningDelta, ToolCallArguments, ToolCallBegin
from gateway.operations.text import Delta, Finish, TokenLogprob, Usage


def render(answers: list[Answer], usage: Usage | None, *, logprobs: bool, nulls: bool, legacy: bool) -> dict[str, Any]:
    """Return the fields of a `chat.completion` that depend on the answers.

    With `nulls`, fields without a value are null, as in OpenAI's responses; otherwise they are left out. With `legacy`,
    a tool call is a `function_call`, as for requests with `functions`.
    """
    choices = []
    for index, answer in enumerate(answers):
        message = render_message(answer, legacy=legacy)
        choice: dict[str, Any] = {"index": index, "message": {**message, "refusal": None} if nulls else message}
        if logprobs or nulls:
            choice["logprobs"] = wire_logprobs.render_chat_logprobs(answer.logprobs) if logprobs else None
        choices.append({**choice, "finish_reason": _finish_reason(answer.finish_reason, legacy)})
    usage_field = {"usage": render_usage(usage)} if usage else {}
    return {"object": "chat.completion", "choices": choices, **usage_field}


class ChatChunkRenderer:
    """Renders events as `chat.completion.chunk`s: the role, then the deltas, then the finish reason of each answer."""

    def __init__(
        self, head: Mapping[str, Any], *, include_usage: bool, logprobs: bool, nulls: bool, legacy: bool
    ) -> None:
        """`nulls` and `legacy` are those of `render`."""
        self._head = {**head, "object": "chat.completion.chunk"}
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._legacy = legacy
        self._nulls = nulls
        self._without_logprobs = {"logprobs": None} if nulls else {}
        self._without_usage = {"usage": None} if nulls and include_usage else {}
        self._begun: set[int] = set()
        self._thinking: set[int] = set()
        """Answers that have only reasoning so far."""

    def render(self, event: ChatEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunks for `event`: none, one, or two for the first event of an answer."""
        if isinstance(event, Usage):
            if self._include_usage:
                yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
            return
        if event.index not in self._begun:
            if isinstance(event, Delta) and not event.text and not event.logprobs:
                return  # text or a tool call: the next event tells
            self._begun.add(event.index)
            yield self._chunk(event.index, self._first_delta(event))
        elif self._thinking and event.index in self._thinking and not isinstance(event, ReasoningDelta):
            self._thinking.discard(event.index)
            if self._nulls and isinstance(event, Finish):  # an empty content, which is not null
                yield self._chunk(event.index, {"content": ""})
        if isinstance(event, Finish):
            yield self._chunk(event.index, {}, _finish_reason(event.finish_reason, self._legacy))
        elif not isinstance(event, Delta):
            yield self._chunk(event.index, render_delta(event, legacy=self._legacy))
        elif event.text or (self._logprobs and event.logprobs):
            yield self._chunk(event.index, render_delta(event), logprobs=event.logprobs)

    def _first_delta(self, event: ChatEvent) -> dict[str, Any]:
        """Return the first delta of an answer. As in a whole answer, the content beside a tool call is null."""
        role: dict[str, Any] = {"role": "assistant"}
        if isinstance(event, ReasoningDelta):  # text or a tool call may follow
            self._thinking.add(event.index)
        elif self._nulls:
            role["content"] = None if isinstance(event, ToolCallBegin) else ""
        return {**role, "refusal": None} if self._nulls else role

    def _chunk(
        self, index: int, delta: Mapping[str, Any], reason: str | None = None, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> bytes:
        logprobs_field: Mapping[str, Any] = self._without_logprobs
        if self._logprobs and logprobs:
            logprobs_field = {"logprobs": wire_logprobs.render_chat_logprobs(logprobs)}
        choice = {"index": index, "delta": delta, **logprobs_field, "finish_reason": reason}
        return orjson.dumps({**self._head, "choices": [choice], **self._without_usage})


def render_message(answer: Answer, *, legacy: bool) -> dict[str, Any]:
    """Return the message of a whole answer; `legacy` is that of `render`."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["content"] = answer.text or None
    if answer.tool_calls and legacy:
        message["function_call"] = {"name": answer.tool_calls[0].name, "arguments": answer.tool_calls[0].arguments}
    elif answer.tool_calls:
        message["tool_calls"] = [
            {"id": _call_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return message


def render_delta(
    event: Delta | ReasoningDelta | ToolCallBegin | ToolCallArguments, *, legacy: bool = False
) -> dict[str, Any]:
    """Return the `delta` of a chunk that tells of `event`; `legacy` is that of `render`."""
    match event:
        case Delta():
            return {"content": event.text}
        case ReasoningDelta(_, text):
            return {"reasoning_content": text}
        case ToolCallBegin(_, _, name) if legacy:
            return {"function_call": {"name": name, "arguments": ""}}
        case ToolCallArguments(_, _, text) if legacy:
            return {"function_call": {"arguments": text}}
        case ToolCallBegin(_, call, name):
            begun = {"index": call, "id": _call_id(), "type": "function"}
            return {"tool_calls": [{**begun, "function": {"name": name, "arguments": ""}}]}
        case ToolCallArguments(_, call, text):
            return {"tool_calls": [{"index": call, "function": {"arguments": text}}]}


def _finish_reason(reason: str | None, legacy: bool) -> str | None:
    return "function_call" if legacy and reason == "tool_calls" else reason


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
