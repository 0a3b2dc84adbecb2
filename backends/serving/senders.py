"""Threads that send responses or encode files, so that the engine's thread never does."""

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

Callback = Callable[[], object]


class SenderThreads:
    """A few threads that call posted callbacks; those of one key run in the order of posting, in one thread.

    Sending a response costs a third of a millisecond within Triton, and two threads send nearly twice as fast as one.
    """

    def __init__(self, threads: int = 2, name: str = "response-sender") -> None:
        self._queues: list[queue.SimpleQueue[Callback | None]] = [queue.SimpleQueue() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=[callbacks], name=f"{name}-{number}", daemon=True)
            for number, callbacks in enumerate(self._queues)
        ]
        for thread in self._threads:
            thread.start()

    def post(self, key: int, callback: Callback) -> None:
        """Have the thread of `key` call `callback`. May be called from any thread."""
        self._queues[key % len(self._queues)].put(callback)

    def close(self) -> None:
        """Call the pending callbacks, then end the threads."""
        for callbacks in self._queues:
            callbacks.put(None)
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _run(callbacks: "queue.SimpleQueue[Callback | None]") -> None:
        while callback := callbacks.get():
            try:
                callback()
            except Exception:  # a client that cannot be reached must not stop the others
                _log.exception("A response could not be sent.")
            del callback  # waiting for the next one must not keep what this one refers to
