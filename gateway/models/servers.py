"""The Triton servers, and the models that discovery last found on each."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.model_card.card import ModelCard
from gateway.models.circuit_breaker import CircuitBreaker
from gateway.signatures.call import Codec, Signature
from gateway.triton.client import StopRequest, TritonClient
from gateway.triton.model_config import ModelConfig

_SILENT_SECONDS = 1.0
"""Seconds after which a server that has not answered discovery gets requests only if no other server holds the model.

Discovery itself waits for longer before it reports a server as unreachable, because the server may be busy.
"""
_AVOID_SECONDS = 2.0
"""Seconds. Short, since Triton calls a process that is merely slow unhealthy, too."""


@dataclass(frozen=True, slots=True)
class Model:
    """One replica of a model: a model on one server."""

    name: str
    server: "TritonServer"
    card: ModelCard
    signature: Signature
    created: int
    """Unix time at which the model was built or, if unknown, first discovered, in seconds."""
    stop_request: StopRequest | None = None
    """The request that stops another request; None: closing the stream is enough."""
    operations: frozenset[str] = field(init=False, compare=False)
    """The operations that it offers: those that its card declares and its signature carries."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", self.card.operations.intersection(self.signature.codecs))

    @property
    def config(self) -> ModelConfig:
        """Its tensors, as Triton describes them."""
        return self.card.config

    @property
    def identity(self) -> tuple[str, str]:
        """The key that its replicas on other servers share: the clients' name, and for an adapter its model's name.

        Of several models of one name, the one with the lowest identity has it: a model before any adapter.
        """
        return self.name, self.card.base_name or ""

    @property
    def owned_by(self) -> str:
        """The name of the owner, `owned_by` of OpenAI's models."""
        return self.card.owned_by

    @property
    def modalities(self) -> frozenset[str]:
        """Kinds of content that a message may have: `text`, `image`."""
        return self.card.text.modalities

    def codec(self, operation: str) -> Codec:
        """Return the codec of an operation. Raises `KeyError` where the model's signature does not carry it."""
        return self.signature.codecs[operation]

    @property
    def supports_logprobs(self) -> bool:
        """True if answers can have log probabilities: an input requests them, and an output has them."""
        return "return_logprobs" in self.config.inputs and "logprobs" in self.config.outputs

    @property
    def fingerprint(self) -> str:
        """A digest of the whole configuration: it changes when the model or the way it is served changes."""
        return _fingerprint(self.config.serialized)


@lru_cache(maxsize=1024)
def _fingerprint(serialized: bytes) -> str:
    return f"fp_{hashlib.sha256(serialized).hexdigest()[:10]}"


@dataclass(slots=True)
class TritonServer:
    """A Triton server and its models. `is_reachable` is None until the first discovery has succeeded or failed."""

    client: TritonClient
    refresh_now: asyncio.Event = field(default_factory=asyncio.Event)
    is_reachable: bool | None = None
    last_error: str = ""
    """The reason why the last discovery failed; empty if it succeeded."""
    asked_since: float | None = None
    """Monotonic time at which discovery asked for the models, in seconds; None once the server has answered."""
    models: tuple[Model, ...] = ()
    seen_configs: tuple[object, ...] = ()
    """The configurations that `models` were made of."""
    not_ready: Mapping[str, str] = field(default_factory=dict)
    """Names of the models that are not ready, with the reason."""
    avoided_until: dict[str, float] = field(default_factory=dict)
    """Models whose process was gone, with the end of their avoidance in seconds of the monotonic clock."""
    first_seen: dict[str, int] = field(default_factory=dict)
    """Unix time of the first discovery of each model, in seconds, by Triton's name for it."""
    served_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The clients' names for each model that was ever found and for its adapters, by Triton's name for it."""
    breaker: CircuitBreaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(self.client.url)

    @property
    def is_silent(self) -> bool:
        """True while discovery has waited for an answer of the server for more than a second."""
        return self.asked_since is not None and time.monotonic() - self.asked_since > _SILENT_SECONDS

    @property
    def serving_models(self) -> tuple[Model, ...]:
        """The models that serve requests now."""
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
        """Send no request to the model `name` for two seconds: Triton reports it as ready, but its process is gone.

        Triton needs a second for each request, one after another, before it reports that.
        """
        self.avoided_until[name] = time.monotonic() + _AVOID_SECONDS
