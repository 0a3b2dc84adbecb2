"""Waiting for what the engine does after the last event, and timing of cancellation."""

import time

from backends.serving.errors import Cancelled


def wait_until(condition):
    """Wait up to a second: the engine releases slots at the end of the iteration that sent the last event."""
    deadline = time.monotonic() + 1
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def cancel_and_time(engine, collector):
    """Cancel a generation, and return the seconds until it has ended."""
    start = time.monotonic()
    engine.cancel(collector.generation)
    collector.wait(5)
    assert isinstance(collector.error, Cancelled)
    return time.monotonic() - start
