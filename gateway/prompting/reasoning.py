"""Tell a model's thoughts from its answer: `<think>…</think>` at the beginning.

DeepSeek-R1, Qwen3 and most others write them so; some chat templates open the tag already, at the end of the prompt:
https://huggingface.co/deepseek-ai/DeepSeek-R1#usage-recommendations, https://huggingface.co/Qwen/Qwen3-8B#switching-between-thinking-and-non-thinking-mode
vLLM reads them in `reasoning/basic_parsers.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gateway.prompting.tool_calls.pieces import Text
from gateway.prompting.tool_calls.prose import until
from gateway.prompting.tool_calls.source import Source, Steps

__all__ = ["THINKERS", "Part", "ReasoningParser", "Text", "Think", "Thought", "opens_thought"]

_OPENING = "<think>"
_CLOSING = "</think>"


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model thought before it answered."""

    text: str


Part: TypeAlias = Thought | Text


class ReasoningParser(Protocol):
    """Tells the thoughts of one answer from its text while it grows. For one answer only."""

    def feed(self, text: str) -> Iterable[Part]:
        """Take the next delta; return what is certain now."""
        ...

    def finish(self) -> Iterable[Part]:
        """Return what was held back, at the end of the answer."""
        ...


class Think:
    """One thought at the beginning of the answer, between tags.

    `opened`: the prompt has opened it already; a tag that the model writes once more is taken for that one. White space
    next to the tags is the template's and left out, so an empty thought is none. A thought that never ends is a thought
    to the end. Tags later in the answer are text: the model may be speaking of them.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._source = Source()
        self._steps = _think(self._source, opened)

    def feed(self, text: str) -> list[Part]:
        """Take the next delta; return what is certain now."""
        if not text:
            return []
        self._source.push(text)
        return self._advance()

    def finish(self) -> list[Part]:
        """Return what was held back, at the end of the answer."""
        self._source.ended = True
        return self._advance()

    def _advance(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._steps:
            if part is None:
                break
            parts.append(part)
        return parts


THINKERS: Mapping[str, Callable[..., ReasoningParser]] = {"think": Think, "deepseek_r1": Think, "qwen3": Think}
"""By the value of a model's parameter `reasoning_parser`; each takes `opened: bool`."""


def opens_thought(prompt: str) -> bool:
    """Say whether a rendered prompt ends inside a thought that its template opened."""
    return prompt.rstrip().endswith(_OPENING)


def _think(source: Source, opened: bool) -> Steps[Part, None]:
    source.mark()
    yield from source.white()
    if (yield from source.word(_OPENING)):
        opened = True
        source.release()
    else:
        source.rewind()
    if opened:
        yield from source.white()
        if not (yield from until(source, _CLOSING, Thought)):
            return
        yield from source.white()
        yield from source.word(_CLOSING)
        yield from source.white()
    yield from until(source, "", Text)
