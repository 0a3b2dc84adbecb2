"""How the answer to a chat is read: thoughts and tool calls are taken out of a text that grows."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.operations.chat import Chat, ChatEvent, ReasoningDelta, RequiredTool, ToolCallArguments, ToolCallBegin
from gateway.operations.text import Delta, Finish, TextEvent, TokenLogprob, Usage
from gateway.prompting import reasoning, tool_calls


class TextParser(Protocol):
    """A parser of `gateway.prompting`: text in, pieces out."""

    def feed(self, text: str) -> Iterable[object]:
        """Return the pieces that `text` completes."""
        ...

    def finish(self) -> Iterable[object]:
        """Return what was held back."""
        ...


class AnswerParser:
    """Turns the events of a text into those of a chat: thoughts and tool calls are taken out of the text."""

    def __init__(
        self, thinks: Callable[[], TextParser] | None, calls: Callable[[], TextParser] | None, chat: Chat
    ) -> None:
        self._thinks, self._calls = thinks, calls
        self._one_call = not chat.parallel_tool_calls
        # OpenAI says `stop` where the caller named the function.
        self._named = isinstance(chat.tool_choice, RequiredTool)
        self._stops = bool(chat.sampling.stop or chat.sampling.stop_token_ids)
        self._answers: dict[int, _AnswerState] = {}

    def read(self, event: TextEvent) -> Iterable[ChatEvent]:
        """Yield the events of a chat that an event of a text means."""
        if isinstance(event, Usage):
            yield event
            return
        answer = self._answers.get(event.index)
        if answer is None:
            answer = self._answers[event.index] = _AnswerState(event.index, self._thinks, self._calls, self._one_call)
        if isinstance(event, Delta):
            yield from answer.feed(event)
            return
        yield from answer.finish()
        # Where the caller's own stops may have cut an answer, a call that is whole says that they did not.
        ended = event.finish_reason == "stop" and (not self._stops or answer.complete)
        called = answer.called and ended and not self._named
        yield Finish(event.index, "tool_calls" if called else event.finish_reason)


class _AnswerState:
    """One answer on its way through the parsers: thoughts first, calls in what is left."""

    def __init__(
        self,
        index: int,
        thinks: Callable[[], TextParser] | None,
        calls: Callable[[], TextParser] | None,
        one_call: bool,
    ) -> None:
        self._index = index
        self._thinks = thinks() if thinks else None
        self._calls = calls() if calls else None
        self._one_call = one_call
        self._logprobs: list[TokenLogprob] = []
        self._shows = True
        self._arguments: list[str] = []
        self.called = False

    @property
    def complete(self) -> bool:
        """Whether the last call has all of its arguments."""
        try:
            json.loads("".join(self._arguments))
        except (ValueError, RecursionError):  # that of brackets without end
            return False
        return True

    def feed(self, delta: Delta) -> Iterable[ChatEvent]:
        """Read on. Log probabilities wait for the next text that is shown, or vanish with what is not shown as text."""
        self._logprobs += delta.logprobs
        return self._think(self._thinks.feed(delta.text)) if self._thinks else self._call(delta.text)

    def finish(self) -> Iterable[ChatEvent]:
        """Show what was held back."""
        if self._thinks:
            yield from self._think(self._thinks.finish())
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
        """Forget the tokens that became a thought or a call."""
        self._logprobs, self._shows = [], False

    def _shown(self, text: str) -> Delta:
        self._shows = True
        first, end = _token_span(self._logprobs, text)
        logprobs, self._logprobs = self._logprobs[first:end], self._logprobs[end:]
        return Delta(self._index, text, 0, tuple(logprobs))


def _token_span(tokens: Sequence[TokenLogprob], text: str) -> tuple[int, int]:
    """Which of the tokens wrote `text`, as far as their bytes tell: all of them where these do not contain it.

    What stands before it is the end of a thought or a call; what stands behind it is held back.
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
