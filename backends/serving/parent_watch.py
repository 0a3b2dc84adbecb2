"""Exit of a model's process when Triton has died."""

import os
import threading
from collections.abc import Callable


def exit_with_parent(interval: float = 0.5, end: Callable[[int], object] = os._exit) -> threading.Event:
    """Call `end(1)` soon after the parent process has died. Setting the returned event stops the watch.

    Triton's Python stub does not notice that the server was killed, crashed or gave up waiting for it: it would keep
    its memory and generate without a client. A thread compares the parent's process id every `interval` seconds.
    """
    stopped = threading.Event()
    parent = os.getppid()

    def watch() -> None:
        while not stopped.wait(interval):
            if os.getppid() != parent:
                end(1)
                return

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    return stopped
