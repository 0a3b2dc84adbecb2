"""Turn texts into vectors."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.operations.operation import Operation


@dataclass(frozen=True, slots=True)
class Embeddings:
    """All vectors, in the order of the inputs: each is little-endian float32[dimensions]."""

    embeddings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EmbedUsage:
    """What the model counted over all inputs."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(Operation):
    """A vector for each of `inputs`, which are texts or else token ids. `dimensions` None is the model's own.

    Of a longer input the first `truncate_prompt_tokens` are read, -1 for as many as the model takes; None leaves it to
    the model, which refuses it unless it was built to cut.
    """

    operation: ClassVar = "embed"
    phrase: ClassVar = "turn texts into vectors"
    route: ClassVar = "/v1/embeddings"
    usage_events: ClassVar = (EmbedUsage,)

    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None


EmbedEvent: TypeAlias = Embeddings | EmbedUsage


async def gather(events: AsyncIterator[EmbedEvent]) -> tuple[tuple[bytes, ...], EmbedUsage | None]:
    """Fold a stream into its vectors and what was counted."""
    vectors: tuple[bytes, ...] = ()
    tokens = None
    async for event in events:
        if isinstance(event, Embeddings):
            vectors = event.embeddings
        else:
            tokens = event
    return vectors, tokens
