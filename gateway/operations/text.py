"""What text-generating operations share: how to choose tokens, and the events of an answer that grows.

An operation is a frozen request in and an asynchronous stream of events out. Nothing here knows HTTP or Triton.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose the next token. `None` leaves the choice to the model.

    Ranges are checked by the dialect that reads them and again by the model that obeys them.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    n: int = 1
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """Text was added to answer `index`.

    `tokens` counts what the model's response brought. Text can be empty while a character or a stop string is
    incomplete.
    """

    index: int
    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """Answer `index` is complete."""

    index: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """What the engine counted: tokens of the prompt, and tokens of all answers. The last event."""

    prompt_tokens: int
    completion_tokens: int


TextEvent: TypeAlias = Delta | Finish | Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """One finished answer."""

    text: str
    reason: FinishReason


async def gather(events: AsyncIterator[TextEvent]) -> tuple[list[Answer], Usage]:
    """Fold a stream into its answers, by index, and what was counted."""
    texts: dict[int, list[str]] = {}
    reasons: dict[int, FinishReason] = {}
    usage = Usage(0, 0)
    async for event in events:
        match event:
            case Delta(index, text):
                texts.setdefault(index, []).append(text)
            case Finish(index, reason):
                reasons[index] = reason
            case Usage():
                usage = event
    return [Answer("".join(texts.get(index, ())), reasons[index]) for index in sorted(reasons)], usage
