"""The Triton servers, and the models that each was last seen to hold."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.model_card.card import ModelCard
from gateway.models.circuit_breaker import CircuitBreaker
from gateway.signatures.call import Codec, Signature
from gateway.triton.client import ModelConfig, StopRequest, TritonClient

_AVOID_SECONDS = 2.0
"""Short, for Triton also says of processes that are merely slow that they are not healthy."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked, at one endpoint."""

    name: str
    server: "TritonServer"
    card: ModelCard
    signature: Signature
    created: int
    """When it was built or, where it does not say, first seen; in seconds since 1970."""
    stop_request: StopRequest | None = None
    """How a request to it is stopped, where closing the stream is not enough."""

    @property
    def config(self) -> ModelConfig:
        """Its tensors, as Triton describes them."""
        return self.card.config

    @property
    def operations(self) -> frozenset[str]:
        """The operations that it offers."""
        return self.card.operations

    @property
    def owned_by(self) -> str:
        """Who built it."""
        return self.card.owned_by

    @property
    def modalities(self) -> frozenset[str]:
        """What a message may contain: `text`, `image`."""
        return self.card.text.modalities

    def codec(self, operation: str) -> Codec:
        """Return the codec of an operation. Raises `KeyError` where the model's signature does not carry it."""
        return self.signature.codecs[operation]

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers can tell what their tokens were worth: one tensor asks for it, and another bears it."""
        return "return_logprobs" in self.config.inputs and "logprobs" in self.config.outputs

    @property
    def fingerprint(self) -> str:
        """Changes when the model or how it is served changes: a digest of its whole configuration."""
        return _fingerprint(self.config.serialized)


@lru_cache(maxsize=1024)
def _fingerprint(serialized: bytes) -> str:
    return f"fp_{hashlib.sha256(serialized).hexdigest()[:10]}"


@dataclass(slots=True)
class TritonServer:
    """A Triton server and what it was last seen to hold. `up` is None until it was first reached or missed."""

    client: TritonClient
    refresh_now: asyncio.Event = field(default_factory=asyncio.Event)
    is_reachable: bool | None = None
    last_error: str = ""
    """Why it was last not reached."""
    models: tuple[Model, ...] = ()
    seen_configs: tuple[object, ...] = ()
    """What its models were described from."""
    not_ready: Mapping[str, str] = field(default_factory=dict)
    """Names that are on the server and not ready, with the reason."""
    avoided_until: dict[str, float] = field(default_factory=dict)
    """Until when models whose process was gone are not asked, in seconds of the monotonic clock."""
    first_seen: dict[str, int] = field(default_factory=dict)
    """When each model was first seen here, in seconds since 1970, by Triton's name for it."""
    served_names: dict[str, str] = field(default_factory=dict)
    """What clients call each model that was ever seen here, by Triton's name for it."""
    breaker: CircuitBreaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(self.client.url)

    @property
    def serving_models(self) -> tuple[Model, ...]:
        """The models that can be asked now."""
        if not self.is_reachable:
            return ()
        if self.avoided_until:
            now = time.monotonic()
            self.avoided_until = {name: until for name, until in self.avoided_until.items() if until > now}
        return (
            tuple(m for m in self.models if m.config.name not in self.avoided_until)
            if self.avoided_until
            else self.models
        )

    def avoid(self, name: str) -> None:
        """Ask the model `name` nothing for a moment: Triton calls it ready, and its process is dead or stopped.

        Triton takes a second over each request before it says so, one after another.
        """
        self.avoided_until[name] = time.monotonic() + _AVOID_SECONDS
