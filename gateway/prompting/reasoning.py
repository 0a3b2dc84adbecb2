"""Separates a model's reasoning from its answer: `<think>…</think>` at the beginning.

DeepSeek-R1, Qwen3 and most other models write it so; some chat templates end the prompt with the opening tag:
https://huggingface.co/deepseek-ai/DeepSeek-R1#usage-recommendations, https://huggingface.co/Qwen/Qwen3-8B#switching-between-thinking-and-non-thinking-mode
vLLM parses them in `reasoning/basic_parsers.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gateway.prompting.tool_calls.pieces import Text
from gateway.prompting.tool_calls.plain_text import read_until
from gateway.prompting.tool_calls.text_buffer import Parse, TextBuffer

__all__ = [
    "REASONING_PARSERS",
    "ReasoningParser",
    "ReasoningPiece",
    "Text",
    "ThinkTagParser",
    "Thought",
    "ends_inside_thought",
]

_OPENING = "<think>"
_CLOSING = "</think>"


@dataclass(frozen=True, slots=True)
class Thought:
    """A part of the reasoning before the answer."""

    text: str


ReasoningPiece: TypeAlias = Thought | Text


class ReasoningParser(Protocol):
    """Separates the reasoning of one answer from its text while it streams. For one answer only."""

    def feed(self, text: str) -> Iterable[ReasoningPiece]:
        """Take the next delta; return what is certain now."""
        ...

    def finish(self) -> Iterable[ReasoningPiece]:
        """Return what was held back, at the end of the answer."""
        ...


class ThinkTagParser:
    """Parses reasoning between tags at the beginning of the answer.

    `opened`: the prompt ends with the opening tag; the model may repeat it. White space next to the tags belongs to the
    template and is dropped, so that empty reasoning yields nothing. Reasoning without a closing tag goes to the end of
    the answer. Tags later in the answer are text: the model may be writing about them.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._source = TextBuffer()
        self._steps = _parse_thought(self._source, opened)

    def feed(self, text: str) -> list[ReasoningPiece]:
        """Take the next delta; return what is certain now."""
        if not text:
            return []
        self._source.push(text)
        return self._advance()

    def finish(self) -> list[ReasoningPiece]:
        """Return what was held back, at the end of the answer."""
        self._source.ended = True
        return self._advance()

    def _advance(self) -> list[ReasoningPiece]:
        parts: list[ReasoningPiece] = []
        for part in self._steps:
            if part is None:
                break
            parts.append(part)
        return parts


REASONING_PARSERS: Mapping[str, Callable[..., ReasoningParser]] = {
    "think": ThinkTagParser,
    "deepseek_r1": ThinkTagParser,
    "qwen3": ThinkTagParser,
}
"""By the value of a model's parameter `reasoning_parser`; each takes `opened: bool`."""


def ends_inside_thought(prompt: str) -> bool:
    """Return whether a rendered prompt ends with the opening tag of reasoning."""
    return prompt.rstrip().endswith(_OPENING)


def _parse_thought(source: TextBuffer, opened: bool) -> Parse[ReasoningPiece, None]:
    source.mark()
    yield from source.skip_whitespace()
    if (yield from source.read_word(_OPENING)):
        opened = True
        source.release()
    else:
        source.rewind()
    if opened:
        yield from source.skip_whitespace()
        if not (yield from read_until(source, _CLOSING, Thought)):
            return
        yield from source.skip_whitespace()
        yield from source.read_word(_CLOSING)
        yield from source.skip_whitespace()
    yield from read_until(source, "", Text)
