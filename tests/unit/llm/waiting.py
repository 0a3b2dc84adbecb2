"""Waits for what the engine's thread does, and cancellation of a generation."""

import time
from collections.abc import Callable

from backends.llm.engine import Engine
from backends.serving.errors import Cancelled
from tests.unit.llm.conftest import EventCollector


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait up to a minute. The engine releases slots at the end of the iteration that sends the last event."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.001)


def cancel_and_wait(engine: Engine, collector: EventCollector) -> None:
    """Cancel a generation, and wait until it has ended."""
    engine.cancel(collector.generation)
    collector.wait()
    assert isinstance(collector.error, Cancelled)
