"""What answers to a chat consist of: https://platform.openai.com/docs/api-reference/chat/object and …/chat-streaming

`reasoning_content` is what a model thinks before it answers, as DeepSeek's and vLLM's servers show it.
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
    """Return the fields of a `chat.completion` that are not known before.

    `nulls`: what was not asked for, or is never there, is null, as OpenAI has it; otherwise it is left out. `legacy`: a
    call is a `function_call`, as for those who ask with `functions`.
    """
    choices = []
    for index, answer in enumerate(answers):
        said = render_message(answer, legacy=legacy)
        choice: dict[str, Any] = {"index": index, "message": {**said, "refusal": None} if nulls else said}
        if logprobs or nulls:
            choice["logprobs"] = wire_logprobs.render_chat_logprobs(answer.logprobs) if logprobs else None
        choices.append({**choice, "finish_reason": _finish_reason(answer.finish_reason, legacy)})
    counted = {"usage": render_usage(usage)} if usage else {}
    return {"object": "chat.completion", "choices": choices, **counted}


class ChatChunkRenderer:
    """Renders events as `chat.completion.chunk`s: the role, then what is added, then why the answer ends."""

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
        """Answers of which thoughts alone are told."""

    def render(self, event: ChatEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunks that `event` becomes: none, one, or two for the first of an answer."""
        if isinstance(event, Usage):
            if self._include_usage:
                yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
            return
        if event.index not in self._begun:
            if isinstance(event, Delta) and not event.text and not event.logprobs:
                return  # what begins is not known yet
            self._begun.add(event.index)
            yield self._chunk(event.index, self._first_delta(event))
        elif self._thinking and event.index in self._thinking and not isinstance(event, ReasoningDelta):
            self._thinking.discard(event.index)
            if self._nulls and isinstance(event, Finish):  # nothing was said, which is not null
                yield self._chunk(event.index, {"content": ""})
        if isinstance(event, Finish):
            yield self._chunk(event.index, {}, _finish_reason(event.finish_reason, self._legacy))
        elif not isinstance(event, Delta):
            yield self._chunk(event.index, render_delta(event, legacy=self._legacy))
        elif event.text or (self._logprobs and event.logprobs):
            yield self._chunk(event.index, render_delta(event), logprobs=event.logprobs)

    def _first_delta(self, event: ChatEvent) -> dict[str, Any]:
        """The first delta of an answer. As in a whole one, the content of an answer that only calls is null."""
        role: dict[str, Any] = {"role": "assistant"}
        if isinstance(event, ReasoningDelta):  # what comes after it is not known yet
            self._thinking.add(event.index)
        elif self._nulls:
            role["content"] = None if isinstance(event, ToolCallBegin) else ""
        return {**role, "refusal": None} if self._nulls else role

    def _chunk(
        self, index: int, delta: Mapping[str, Any], reason: str | None = None, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> bytes:
        shown: Mapping[str, Any] = self._without_logprobs
        if self._logprobs and logprobs:
            shown = {"logprobs": wire_logprobs.render_chat_logprobs(logprobs)}
        choice = {"index": index, "delta": delta, **shown, "finish_reason": reason}
        return orjson.dumps({**self._head, "choices": [choice], **self._without_usage})


def render_message(answer: Answer, *, legacy: bool) -> dict[str, Any]:
    """Return the message of a whole answer; `legacy` is that of `render`."""
    said: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        said["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        said["content"] = answer.text or None
    if answer.tool_calls and legacy:
        said["function_call"] = {"name": answer.tool_calls[0].name, "arguments": answer.tool_calls[0].arguments}
    elif answer.tool_calls:
        said["tool_calls"] = [
            {"id": _call_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return said


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
