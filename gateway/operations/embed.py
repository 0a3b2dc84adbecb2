"""The operation `embed`: embedding vectors of texts."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.operations.operation import Operation


@dataclass(frozen=True, slots=True)
class Embeddings:
    """All vectors in the order of the inputs. Each is little-endian float32[dimensions]."""

    embeddings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EmbedUsage:
    """The number of tokens of all inputs together, as the model counted them."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(Operation):
    """Embed each of `inputs`: all of them texts, or all of them token ids.

    `dimensions` is the length of the vectors; None: the default of the model. A longer input is truncated to its first
    `truncate_prompt_tokens` tokens; -1: to as many as the model takes; None: the model decides, and refuses the input
    unless it was built to truncate.
    """

    operation: ClassVar = "embed"
    phrase: ClassVar = "embed texts"
    genai_operation: ClassVar = "embeddings"
    route: ClassVar = "/v1/embeddings"
    usage_events: ClassVar = (EmbedUsage,)

    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None


EmbedEvent: TypeAlias = Embeddings | EmbedUsage


async def gather(events: AsyncIterator[EmbedEvent]) -> tuple[tuple[bytes, ...], EmbedUsage | None]:
    """Collect a stream. Return the vectors, and the token count where the model reports it."""
    vectors: tuple[bytes, ...] = ()
    usage = None
    async for event in events:
        if isinstance(event, Embeddings):
            vectors = event.embeddings
        else:
            usage = event
    return vectors, usage
