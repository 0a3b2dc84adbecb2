"""Separates the reasoning and the tool calls of an answer from its text, while it streams."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.operations.chat import Chat, ChatEvent, ReasoningDelta, RequiredTool, ToolCallArguments, ToolCallBegin
from gateway.operations.text import Delta, Finish, TextEvent, TokenLogprob, Usage
from gateway.prompting import reasoning, tool_calls


class TextParser(Protocol):
    """A streaming parser of `gateway.prompting`: text in, pieces out."""

    def feed(self, text: str) -> Iterable[object]:
        """Return the pieces that `text` completes."""
        ...

    def finish(self) -> Iterable[object]:
        """Return the pieces that were held back, at the end of the text."""
        ...


class AnswerParser:
    """Turns the events of a completion into those of a chat: separates reasoning and tool calls from the text."""

    def __init__(
        self, new_reasoning: Callable[[], TextParser] | None, new_calls: Callable[[], TextParser] | None, chat: Chat
    ) -> None:
        """`new_reasoning` and `new_calls` create the parsers of one answer; None: it has no such parts."""
        self._new_reasoning, self._new_calls = new_reasoning, new_calls
        self._one_call = not chat.parallel_tool_calls
        # OpenAI's finish reason is `stop` where the caller named the function.
        self._is_named = isinstance(chat.tool_choice, RequiredTool)
        self._has_stops = bool(chat.sampling.stop or chat.sampling.stop_token_ids)
        self._answers: dict[int, _AnswerState] = {}

    def read(self, event: TextEvent) -> Iterable[ChatEvent]:
        """Yield the events of a chat that an event of a completion becomes."""
        if isinstance(event, Usage):
            yield event
            return
        answer = self._answers.get(event.index)
        if answer is None:
            answer = self._answers[event.index] = _AnswerState(
                event.index, self._new_reasoning, self._new_calls, self._one_call
            )
        if isinstance(event, Delta):
            yield from answer.feed(event)
            return
        yield from answer.finish()
        # One of the caller's stop strings may have cut the answer; a complete call shows that none did.
        ended = event.finish_reason == "stop" and (not self._has_stops or answer.has_complete_call)
        called = answer.called and ended and not self._is_named
        yield Finish(event.index, "tool_calls" if called else event.finish_reason)


class _AnswerState:
    """The parsers of one answer: reasoning is separated first, then calls from the remaining text."""

    def __init__(
        self,
        index: int,
        new_reasoning: Callable[[], TextParser] | None,
        new_calls: Callable[[], TextParser] | None,
        one_call: bool,
    ) -> None:
        self._index = index
        self._reasoning = new_reasoning() if new_reasoning else None
        self._calls = new_calls() if new_calls else None
        self._one_call = one_call
        self._logprobs: list[TokenLogprob] = []
        self._shows = True
        self._arguments: list[str] = []
        self.called = False

    @property
    def has_complete_call(self) -> bool:
        """Return whether the arguments of the last call are complete JSON."""
        try:
            json.loads("".join(self._arguments))
        except (ValueError, RecursionError):  # of endless brackets
            return False
        return True

    def feed(self, delta: Delta) -> Iterable[ChatEvent]:
        """Parse a delta. Its log probabilities go with the next text; those of reasoning and calls are dropped."""
        self._logprobs += delta.logprobs
        return self._think(self._reasoning.feed(delta.text)) if self._reasoning else self._call(delta.text)

    def finish(self) -> Iterable[ChatEvent]:
        """Yield the events that were held back, at the end of the answer."""
        if self._reasoning:
            yield from self._think(self._reasoning.finish())
        if self._calls:
            yield from self._events(self._calls.finish())
        if self._logprobs and self._shows:
            yield self._shown("")

    def _think(self, pieces: Iterable[object]) -> Iterable[ChatEvent]:
        for piece in pieces:
            if isinstance(piece, reasoning.Thought):
                self._hide()
                yield ReasoningDelta(self._index, piece.text)
            elif isinstance(piece, tool_calls.Text):
                yield from self._call(piece.text)

    def _call(self, text: str) -> Iterable[ChatEvent]:
        if self._calls:
            yield from self._events(self._calls.feed(text))
        elif text:
            yield self._shown(text)

    def _events(self, pieces: Iterable[object]) -> Iterable[ChatEvent]:
        for piece in pieces:
            if isinstance(piece, tool_calls.Text):
                yield self._shown(piece.text)
                continue
            self._hide()
            match piece:
                case tool_calls.CallBegin(call, name) if not (self._one_call and call):
                    self.called = True
                    self._arguments = []
                    yield ToolCallBegin(self._index, call, name)
                case tool_calls.CallArguments(call, text) if not (self._one_call and call):
                    self._arguments.append(text)
                    yield ToolCallArguments(self._index, call, text)

    def _hide(self) -> None:
        """Drop the log probabilities of tokens that became reasoning or a call."""
        self._logprobs, self._shows = [], False

    def _shown(self, text: str) -> Delta:
        self._shows = True
        first, end = _token_span(self._logprobs, text)
        logprobs, self._logprobs = self._logprobs[first:end], self._logprobs[end:]
        return Delta(self._index, text, 0, tuple(logprobs))


def _token_span(tokens: Sequence[TokenLogprob], text: str) -> tuple[int, int]:
    """Return the first token of `text` and the last + 1; all tokens where their bytes do not contain it.

    Tokens before it are the end of reasoning or of a call; those behind it are held back.
    """
    sizes = [len(token.chosen.data) if token.chosen else 0 for token in tokens]
    data = b"".join(token.chosen.data for token in tokens if token.chosen)
    at = data.rfind(text.encode()) if text else -1
    if at < 0:
        return 0, len(tokens)
    end_at = at + len(text.encode())
    first, last, start = len(tokens), 0, 0
    for i, size in enumerate(sizes):
        if start + size > at and start < end_at:
            first, last = min(first, i), i + 1
        start += size
    return first, last
