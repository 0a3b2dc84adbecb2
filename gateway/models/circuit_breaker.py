"""A circuit breaker for models that do not respond although their server reports them as ready, such as a dead engine.

Consecutive failures only make a model suspect, since one caller can cause any number of them with a request that the
model cannot handle. The gateway then sends a harmless probe, and opens the circuit only if the probe fails as well. It
repeats the probe with growing pauses until the model responds. While a circuit is open, other servers are preferred. If
there is no other server, requests are still sent, so that a wrong decision makes no model unavailable. Models that
respond are never probed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from gateway.errors import GatewayError, ModelFailed, ModelTimeout, QueueFull, ServerUnavailable

FAILURE_THRESHOLD = 5
"""Failures in a row, without a success between them, that make a model suspect."""

_MIN_PROBE_SECONDS = 1.0
_MAX_PROBE_SECONDS = 10.0
"""Seconds between two probes: the first pause, doubled each time, and the longest."""

Probe = Callable[[], Awaitable[None]]
"""Sends a harmless request to a model. Raises a `GatewayError` where it does not answer."""

StateCallback = Callable[[bool], None]
"""Called with True when a circuit opens, and with False when it closes."""


@dataclass(slots=True, eq=False)
class _Circuit:
    on_change: StateCallback
    failures: int = 0
    is_open: bool = False
    probe_seconds: float = field(default_factory=lambda: _MIN_PROBE_SECONDS)
    probe_task: asyncio.Task[None] | None = None
    is_suspect: bool = False
    """True: other servers are preferred."""


@dataclass(slots=True)
class CircuitBreaker:
    """The circuits of one server: of the models that have failed since they last answered, by Triton's names."""

    server: str
    _circuits: dict[str, _Circuit] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether any model has failed since it last answered."""
        return bool(self._circuits)

    def is_open(self, model: str) -> bool:
        """Return whether the model failed a probe and has not answered since."""
        return model in self._circuits and self._circuits[model].is_open

    def is_suspect(self, model: str) -> bool:
        """Return whether other servers should be preferred for the model."""
        return model in self._circuits and self._circuits[model].is_suspect

    def record_failure(self, model: str, error: GatewayError, probe: Probe | None, report: StateCallback) -> None:
        """Record a failed request. Failures of the backend and timeouts count, not a caller's mistake or a full queue.

        A model that cannot be probed (`probe` is None) is only avoided for a while: nothing shows whether the requests
        or the model were at fault.
        """
        if not isinstance(error, ModelFailed | ModelTimeout):
            return
        circuit = self._circuits.setdefault(model, _Circuit(report))
        circuit.failures += 1
        if circuit.failures >= FAILURE_THRESHOLD and circuit.probe_task is None:
            circuit.is_suspect = True
            recovery = self._probe_until_closed(model, circuit, probe) if probe else self._suspect_for_a_while(circuit)
            circuit.probe_task = asyncio.create_task(recovery)

    def record_success(self, model: str) -> None:
        """Close the circuit of a model that has answered."""
        if circuit := self._circuits.pop(model, None):
            self._close(model, circuit)

    def reset(self) -> None:
        """Close all circuits: the server was gone, and its models are new processes."""
        for model in tuple(self._circuits):
            self.record_success(model)

    def _close(self, model: str, circuit: _Circuit) -> None:
        if circuit.probe_task and circuit.probe_task is not asyncio.current_task():
            circuit.probe_task.cancel()
        if circuit.is_open:
            circuit.is_open = False
            circuit.on_change(False)
            structlog.get_logger("gateway.models.catalog").info("model responds again", model=model, url=self.server)

    async def _probe_until_closed(self, model: str, circuit: _Circuit, probe: Probe) -> None:
        while True:
            try:
                await probe()
            except (ModelFailed, ModelTimeout) as error:
                if not circuit.is_open:
                    circuit.is_open = True
                    circuit.on_change(True)
                    structlog.get_logger("gateway.models.catalog").warning(
                        "model does not respond", model=model, url=self.server, reason=error.message[:500]
                    )
            except (QueueFull, ServerUnavailable):
                if not circuit.is_open:  # it works on other requests; or its server is gone, which discovery notices
                    break
            except Exception:
                break  # the model answered: it refused the probe
            else:
                break
            await asyncio.sleep(circuit.probe_seconds)
            circuit.probe_seconds = min(_MAX_PROBE_SECONDS, 2 * circuit.probe_seconds)
        self.record_success(model)

    async def _suspect_for_a_while(self, circuit: _Circuit) -> None:
        await asyncio.sleep(circuit.probe_seconds)
        circuit.probe_seconds = min(_MAX_PROBE_SECONDS, 2 * circuit.probe_seconds)
        # One more failure makes it suspect again, for longer.
        circuit.failures, circuit.is_suspect, circuit.probe_task = FAILURE_THRESHOLD - 1, False, None
