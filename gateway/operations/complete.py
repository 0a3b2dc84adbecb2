"""Continue a text."""

from dataclasses import dataclass, field

from gateway.operations.text import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Continue `prompt`. `stream` says whether the caller wants the text as it grows."""

    model: str
    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = False
