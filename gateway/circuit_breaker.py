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

from gateway.errors import GatewayError, ModelFailed, ModelTimeout, QueueFull, ServerGone

FAILURES = 5
"""So many in a row, without a success between them, raise a suspicion."""

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 10.0
"""Seconds between two probes."""

Probe = Callable[[], Awaitable[None]]
"""Asks a model something harmless. Raises a `GatewayError` where it does not answer."""

Report = Callable[[bool], None]
"""Is told when a circuit opens (True) and when it closes."""


@dataclass(slots=True, eq=False)
class _Circuit:
    report: Report
    failures: int = 0
    open: bool = False
    waits: float = field(default_factory=lambda: _FIRST_WAIT)
    probing: asyncio.Task[None] | None = None
    suspect: bool = False
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
        return model in self._circuits and self._circuits[model].open

    def is_suspect(self, model: str) -> bool:
        """Whether another server is the better choice."""
        return model in self._circuits and self._circuits[model].suspect

    def failed(self, model: str, error: GatewayError, probe: Probe | None, report: Report) -> None:
        """A request to the model failed. Only what speaks of the back end counts, not a caller's mistake or a queue.

        A model that cannot be probed is only left to other servers, for a while: nobody can tell whose fault it was.
        """
        if not isinstance(error, ModelFailed | ModelTimeout):
            return
        circuit = self._circuits.setdefault(model, _Circuit(report))
        circuit.failures += 1
        if circuit.failures >= FAILURES and circuit.probing is None:
            circuit.suspect = True
            look_after = self._look_after(model, circuit, probe) if probe else self._avoid(circuit)
            circuit.probing = asyncio.create_task(look_after)

    def succeeded(self, model: str) -> None:
        """The model has answered."""
        if circuit := self._circuits.pop(model, None):
            self._close(model, circuit)

    def forget(self) -> None:
        """The server was gone: its models are new ones."""
        for model in tuple(self._circuits):
            self.succeeded(model)

    def _close(self, model: str, circuit: _Circuit) -> None:
        if circuit.probing and circuit.probing is not asyncio.current_task():
            circuit.probing.cancel()
        if circuit.open:
            circuit.open = False
            circuit.report(False)
            structlog.get_logger("gateway.catalog").info("model answers again", model=model, url=self.server)

    async def _look_after(self, model: str, circuit: _Circuit, probe: Probe) -> None:
        while True:
            try:
                await probe()
            except (ModelFailed, ModelTimeout) as error:
                if not circuit.open:
                    circuit.open = True
                    circuit.report(True)
                    structlog.get_logger("gateway.catalog").warning(
                        "model does not answer", model=model, url=self.server, reason=error.message[:500]
                    )
            except (QueueFull, ServerGone):
                if not circuit.open:  # it works on others' requests, or is gone, which others notice
                    break
            except Exception:
                break  # it has an opinion of the probe
            else:
                break
            await asyncio.sleep(circuit.waits)
            circuit.waits = min(_LONGEST_WAIT, 2 * circuit.waits)
        self.succeeded(model)

    async def _avoid(self, circuit: _Circuit) -> None:
        await asyncio.sleep(circuit.waits)
        circuit.waits = min(_LONGEST_WAIT, 2 * circuit.waits)
        # The next request tells: one more failure, and it is avoided for longer.
        circuit.failures, circuit.suspect, circuit.probing = FAILURES - 1, False, None
