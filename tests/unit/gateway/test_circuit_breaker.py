"""The circuit breaker of a model: failures and probes open and close it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    ModelTimeout,
    QueueFull,
    ServerUnavailable,
)
from gateway.models import circuit_breaker
from gateway.models.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker

pytestmark = pytest.mark.asyncio

DEAD = ModelFailed("The engine is dead.")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "_MIN_PROBE_SECONDS", 0.001)
    monkeypatch.setattr(circuit_breaker, "_MAX_PROBE_SECONDS", 0.002)


class Circuit:
    """A model whose probes end with these outcomes; the last one repeats."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.breaker = CircuitBreaker("server")
        self.reports: list[bool] = []
        self.probes = 0
        self._outcomes = outcomes

    async def probe(self) -> None:
        outcome = self._outcomes[min(self.probes, len(self._outcomes) - 1)]
        self.probes += 1
        await asyncio.sleep(0)
        if outcome:
            raise outcome

    def fail(self, count: int = FAILURE_THRESHOLD, error: GatewayError = DEAD) -> None:
        for _ in range(count):
            self.breaker.record_failure("m", error, self.probe, self.reports.append)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("failure", [DEAD, ModelTimeout("Nothing came.")])
async def test_the_circuit_opens_when_the_probe_fails_and_closes_when_one_succeeds(failure: GatewayError) -> None:
    circuit = Circuit(failure, failure, QueueFull("Full."), ServerUnavailable("Gone."), None)
    circuit.fail(error=failure)
    assert circuit.breaker.is_suspect("m") and not circuit.breaker.is_open("m")
    await circuit.until(lambda: circuit.breaker.is_open("m"))
    await circuit.until(lambda: not circuit.breaker)
    assert (circuit.probes, circuit.reports) == (5, [True, False])


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        InvalidRequest("No."),
        QueueFull("Full."),
        ServerUnavailable("Gone."),
        ModelNotFound("None."),
        IndexError("a response that nobody can read"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
async def test_the_circuit_stays_closed_when_the_probe_gets_an_answer(outcome: Exception | None) -> None:
    circuit = Circuit(outcome)
    circuit.fail()
    await circuit.until(lambda: not circuit.breaker)
    assert (circuit.probes, circuit.reports) == (1, [])
    # It counts anew.
    circuit.fail(FAILURE_THRESHOLD - 1)
    await asyncio.sleep(0.01)
    assert circuit.probes == 1 and not circuit.breaker.is_suspect("m")


async def test_only_one_probe_runs_at_a_time() -> None:
    circuit = Circuit(None)
    circuit.fail(FAILURE_THRESHOLD - 1)
    circuit.fail(50, InvalidRequest("No."))
    circuit.fail(50, QueueFull("Full."))
    circuit.fail(50, ServerUnavailable("Gone."))
    await asyncio.sleep(0.01)
    assert circuit.probes < 1
    circuit.fail(50)
    await circuit.until(lambda: not circuit.breaker)
    assert circuit.probes == 1


@pytest.mark.parametrize("end", [lambda b: b.record_success("m"), lambda b: b.reset()], ids=["answer", "restart"])
async def test_an_answer_closes_the_circuit_and_ends_the_probes(end: Callable[[CircuitBreaker], None]) -> None:
    circuit = Circuit(DEAD)
    circuit.fail()
    await circuit.until(lambda: circuit.breaker.is_open("m"))
    end(circuit.breaker)
    assert not circuit.breaker and circuit.reports == [True, False]
    await asyncio.sleep(0.005)
    probes = circuit.probes
    await asyncio.sleep(0.02)
    assert circuit.probes == probes


async def test_a_model_without_a_probe_is_avoided_for_a_while() -> None:
    breaker = CircuitBreaker("server")
    probe: Callable[[], Awaitable[None]] | None = None
    reports: list[bool] = []
    for _ in range(FAILURE_THRESHOLD):
        assert not breaker.is_suspect("m")
        breaker.record_failure("m", DEAD, probe, reports.append)
    async with asyncio.timeout(30):
        while breaker.is_suspect("m"):
            await asyncio.sleep(0.001)
    breaker.record_failure("m", DEAD, probe, reports.append)  # the next one tells
    assert breaker.is_suspect("m") and not breaker.is_open("m")
    breaker.record_success("m")
    assert not breaker and not reports
