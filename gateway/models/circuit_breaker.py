"""Which models of a server do not answer although the server calls them ready: an engine that has died, for example.

A circuit breaker that is asked before it opens. Failures in a row only raise a suspicion, since a caller can bring
about as many as it likes with a request that a model cannot bear: the gateway then asks the model something harmless
itself, and only where that fails too does the circuit open. It is asked again, less and less often, until it answers.
While a circuit is open, other servers are preferred; where there is none, requests go on being tried, so that a breaker
that is wrong takes no model away from anybody. Nothing is asked of models that answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from gateway.errors import GatewayError, ModelFailed, ModelTimeout, QueueFull, ServerUnavailable

FAILURE_THRESHOLD = 5
"""So many in a row, without a success between them, raise a suspicion."""

_MIN_PROBE_SECONDS = 1.0
_MAX_PROBE_SECONDS = 10.0
"""Seconds between two probes."""

Probe = Callable[[], Awaitable[None]]
"""Asks a model something harmless. Raises a `GatewayError` where it does not answer."""

StateCallback = Callable[[bool], None]
"""Is told when a circuit opens (True) and when it closes."""


@dataclass(slots=True, eq=False)
class _Circuit:
    on_change: StateCallback
    failures: int = 0
    is_open: bool = False
    probe_seconds: float = field(default_factory=lambda: _MIN_PROBE_SECONDS)
    probe_task: asyncio.Task[None] | None = None
    is_suspect: bool = False
    """Whether other servers are preferred."""


@dataclass(slots=True)
class CircuitBreaker:
    """The circuits of one server's models that have failed since they last answered, by Triton's names for them."""

    server: str
    _circuits: dict[str, _Circuit] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._circuits)

    def is_open(self, model: str) -> bool:
        """Whether the model is known not to answer."""
        return model in self._circuits and self._circuits[model].is_open

    def is_suspect(self, model: str) -> bool:
        """Whether another server is the better choice."""
        return model in self._circuits and self._circuits[model].is_suspect

    def record_failure(self, model: str, error: GatewayError, probe: Probe | None, report: StateCallback) -> None:
        """A request to the model failed. Only what speaks of the back end counts, not a caller's mistake or a queue.

        A model that cannot be probed is only left to other servers, for a while: nobody can tell whose fault it was.
        """
        if not isinstance(error, ModelFailed | ModelTimeout):
            return
        circuit = self._circuits.setdefault(model, _Circuit(report))
        circuit.failures += 1
        if circuit.failures >= FAILURE_THRESHOLD and circuit.probe_task is None:
            circuit.is_suspect = True
            look_after = (
                self._probe_until_closed(model, circuit, probe) if probe else self._suspect_for_a_while(circuit)
            )
            circuit.probe_task = asyncio.create_task(look_after)

    def record_success(self, model: str) -> None:
        """The model has answered."""
        if circuit := self._circuits.pop(model, None):
            self._close(model, circuit)

    def reset(self) -> None:
        """The server was gone: its models are new ones."""
        for model in tuple(self._circuits):
            self.record_success(model)

    def _close(self, model: str, circuit: _Circuit) -> None:
        if circuit.probe_task and circuit.probe_task is not asyncio.current_task():
            circuit.probe_task.cancel()
        if circuit.is_open:
            circuit.is_open = False
            circuit.on_change(False)
            structlog.get_logger("gateway.models.catalog").info("model answers again", model=model, url=self.server)

    async def _probe_until_closed(self, model: str, circuit: _Circuit, probe: Probe) -> None:
        while True:
            try:
                await probe()
            except (ModelFailed, ModelTimeout) as error:
                if not circuit.is_open:
                    circuit.is_open = True
                    circuit.on_change(True)
                    structlog.get_logger("gateway.models.catalog").warning(
                        "model does not answer", model=model, url=self.server, reason=error.message[:500]
                    )
            except (QueueFull, ServerUnavailable):
                if not circuit.is_open:  # it works on others' requests, or is gone, which others notice
                    break
            except Exception:
                break  # it has an opinion of the probe
            else:
                break
            await asyncio.sleep(circuit.probe_seconds)
            circuit.probe_seconds = min(_MAX_PROBE_SECONDS, 2 * circuit.probe_seconds)
        self.record_success(model)

    async def _suspect_for_a_while(self, circuit: _Circuit) -> None:
        await asyncio.sleep(circuit.probe_seconds)
        circuit.probe_seconds = min(_MAX_PROBE_SECONDS, 2 * circuit.probe_seconds)
        # The next request tells: one more failure, and it is avoided for longer.
        circuit.failures, circuit.is_suspect, circuit.probe_task = FAILURE_THRESHOLD - 1, False, None
