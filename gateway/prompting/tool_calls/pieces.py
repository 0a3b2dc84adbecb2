"""The pieces of an answer: text and tool calls."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """Ordinary content."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """The `call`-th tool call of this answer begins, counted from 0. Its id is given elsewhere."""

    call: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A fragment of the arguments of tool call `call`.

    The fragments of one call, put together, are a JSON object. They are not when the answer was cut off inside them, or
    when the model wrote broken JSON: then they are the model's text, as in OpenAI's API
    (https://platform.openai.com/docs/api-reference/chat/object: "the model does not always generate valid JSON").
    """

    call: int
    text: str


Piece: TypeAlias = Text | CallBegin | CallArguments


class ToolCallParser(Protocol):
    """Separates the tool calls of one answer from its text while it streams. For one answer only.

    The concatenated pieces do not depend on how an answer is cut into deltas. Everything that is no call comes out as
    `Text`, unchanged. White space before a call belongs to the call, as does white space between calls and after the
    last one: templates write it themselves when they render a call.
    """

    def feed(self, text: str) -> Iterable[Piece]:
        """Take the next delta; return what is certain now."""
        ...

    def finish(self) -> Iterable[Piece]:
        """Return what was held back, at the end of the answer."""
        ...
