"""How long the engine takes to do what happens behind the back of whoever listens."""

import time

from backends.serving.errors import Cancelled


def wait_until(condition):
    """Rows are freed at the end of the turn that told the last event."""
    deadline = time.monotonic() + 1
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def cancel_and_time(engine, collector):
    start = time.monotonic()
    engine.cancel(collector.generation)
    collector.wait(5)
    assert isinstance(collector.error, Cancelled)
    return time.monotonic() - start
