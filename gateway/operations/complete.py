"""Continue a text."""

from dataclasses import dataclass, field

from gateway.operations.text import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Continue `prompt`."""

    model: str
    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
