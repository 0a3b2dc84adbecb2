"""Ending with the server."""

import os
import threading
from collections.abc import Callable


def exit_with_parent(interval: float = 0.5, end: Callable[[int], object] = os._exit) -> threading.Event:
    """Leave this process soon after its parent died; setting the event that is given back stops the watching.

    Triton's Python stub does not notice when the server is killed, crashes or gives up waiting: it would go on
    generating for nobody, with all its memory. `interval` is in seconds.
    """
    stopped = threading.Event()
    parent = os.getppid()

    def watch() -> None:
        while not stopped.wait(interval):
            if os.getppid() != parent:
                end(1)
                return

    threading.Thread(target=watch, name="llm-lifeline", daemon=True).start()
    return stopped
