"""The frontend of every backend: it admits requests, notices disconnects, sends responses in order, and closes."""

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from backends.serving.active_request import ActiveRequest, SenderT
from backends.serving.cancellation import CancellationWatcher
from backends.serving.errors import EngineFailed, GenerationError
from backends.serving.senders import SenderThreads

RequestT = TypeVar("RequestT")
ActiveT = TypeVar("ActiveT", bound=ActiveRequest[Any, Any])


class RequestStats(Protocol):
    """The counter that the frontend updates; a backend's `Stats` has more."""

    requests_cancelled: int


class RequestFrontend(ABC, Generic[RequestT, SenderT, ActiveT]):
    """Accepts requests and answers each with exactly one last response.

    It knows neither Triton nor tensors: `model.py` reads the tensors, and a `ResponseSender` writes them. A subclass
    creates the active requests, bounds the queue, and closes its scheduler.
    """

    def __init__(self, stats: RequestStats) -> None:
        """Count disconnects in `stats.requests_cancelled`."""
        self.active_size = 0
        """The `size` of all active requests together; read and written under the lock."""
        self._stats = stats
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._active_requests: dict[int, ActiveT] = {}
        self._closed = False
        self._pools: list[ThreadPoolExecutor] = []
        self._senders = SenderThreads()
        self._cancellation = CancellationWatcher()

    @abstractmethod
    def make_active(self, key: int, request: RequestT, sender: SenderT) -> ActiveT:
        """Return the active request that `key` identifies; it has not started."""

    @abstractmethod
    def queue_error(self, active: ActiveT) -> GenerationError | None:
        """Return `Overloaded` where the queue has no room for a request. Called under the lock."""

    def close_scheduler(self) -> None:
        """Close the backend's scheduler and engine, if it has any. Called once, after the thread pools have ended."""

    def new_pool(self, num_threads: int, name: str) -> ThreadPoolExecutor:
        """Return a thread pool that `close` shuts down."""
        pool = ThreadPoolExecutor(num_threads, name)
        self._pools.append(pool)
        return pool

    def add_request(self, request: RequestT, sender: SenderT) -> None:
        """Admit a request and start it, or send the reason why not; return at once."""
        active = self.make_active(next(self._keys), request, sender)
        with self._lock:
            error = EngineFailed("The model is being unloaded.") if self._closed else self.queue_error(active)
            if error is None:
                self._active_requests[active.key] = active
                self.active_size += active.size
        if error is not None:
            sender.fail(error)
            return
        self._cancellation.add(active.key, sender.is_cancelled, active.cancel)
        active.start()

    def close(self) -> None:
        """Fail every active request, and end every thread. Calls after the first do nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._cancellation.close()
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        self.close_scheduler()
        with self._lock:
            active_requests = list(self._active_requests.values())
        for active in active_requests:
            active.fail(EngineFailed("The model is being unloaded."))
        self._senders.close()

    def is_closed(self) -> bool:
        """Return whether `close` has been called; it fails every active request itself."""
        return self._closed

    def count_cancelled(self) -> None:
        """Count a disconnect. Called by the cancellation thread alone."""
        self._stats.requests_cancelled += 1

    def post(self, key: int, callback: Callable[[], object]) -> None:
        """Have a sender thread call `callback`; the callbacks of one key run in the order of posting."""
        self._senders.post(key, callback)

    def remove(self, key: int) -> None:
        """Forget a request whose last response is about to be sent."""
        self._cancellation.remove(key)
        with self._lock:
            if active := self._active_requests.pop(key, None):
                self.active_size -= active.size
