"""One request from its admission to its last response, for any kind of output."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from backends.serving.errors import Cancelled, EngineFailed, GenerationError

if TYPE_CHECKING:
    from backends.serving.request_frontend import RequestFrontend


class ResponseSender(Protocol):
    """Sends the responses of one request. A backend adds the methods that send its outputs."""

    def is_cancelled(self) -> bool:
        """Return whether the client has cancelled; costs a round trip to the server's process."""

    def fail(self, error: GenerationError) -> None:
        """Send an error as the last response."""


FrontendT = TypeVar("FrontendT", bound="RequestFrontend[Any, Any, Any]")
SenderT = TypeVar("SenderT", bound=ResponseSender)


class ActiveRequest(ABC, Generic[FrontendT, SenderT]):
    """One admitted request. A subclass prepares it, hands it to a scheduler and posts the results of the scheduler.

    Several threads use it: Triton's calls `start`, a thread pool prepares, the scheduler calls back, the cancellation
    thread calls `cancel`, and one sender thread sends the responses in the order in which they were posted. Exactly one
    response is the last: whichever of an output, an error, a disconnect and `close` calls `stop` first decides it.
    """

    def __init__(self, key: int, sender: SenderT, frontend: FrontendT, size: int = 1) -> None:
        """`size` is added to `RequestFrontend.active_size`. Each backend has its own unit."""
        self.key = key
        self.size = size
        self.stopped = False
        """True once the last response is decided or the client has disconnected: further work is useless."""
        self._sender = sender
        self._frontend = frontend
        self._lock = threading.Lock()
        self._final_sent = False
        """Used by the sender thread alone."""

    @abstractmethod
    def start(self) -> None:
        """Begin with `run_in_pool`, and return at once. Called once, by the thread that Triton calls."""

    def release(self) -> None:
        """Cancel the scheduled work and drop the inputs. May be called several times, from any thread."""

    def run_in_pool(self, pool: ThreadPoolExecutor, step: Callable[[], None]) -> None:
        """Have `pool` run `step`, unless the request has stopped by then. An exception of it ends the request."""
        try:
            pool.submit(self._run, step)
        except RuntimeError as error:  # the pool is shut down, or no thread can be started
            if not self._frontend.is_closed():  # `close` fails every active request itself
                self.fail(EngineFailed(f"The request could not be prepared: {error}"))

    def _run(self, step: Callable[[], None]) -> None:
        if self.stopped:
            return
        try:
            step()
        except GenerationError as error:
            if not (isinstance(error, Cancelled) and self._frontend.is_closed()):
                self.fail(error)
        except Exception as error:  # nothing else would answer the client
            self.fail(EngineFailed(f"The request could not be prepared: {str(error)[:500]}"))
        if self.stopped:  # while the step ran, which may have scheduled the work since
            self.release()

    def is_abandoned(self) -> bool:
        """Return whether a long step should end early: the request has stopped, or the model is being unloaded."""
        return self.stopped or self._frontend.is_closed()

    def cancel(self) -> None:
        """End the request because its client has disconnected. Called by the cancellation thread."""
        if self.stop():
            self._frontend.count_cancelled()
            self._end(Cancelled("The request was cancelled."))

    def fail(self, error: GenerationError) -> None:
        """Cancel the work and send an error as the last response, unless the last response is decided already."""
        if self.stop():
            self._end(error)

    def finish(self, send: Callable[[], None]) -> None:
        """Send the last output with `send`, unless the last response is decided already."""
        if self.stop():
            self._post_last(send)

    def stop(self) -> bool:
        """Claim the last response; return False where it is decided already."""
        with self._lock:
            stopped, self.stopped = self.stopped, True
        return not stopped

    def post(self, send: Callable[[], None]) -> None:
        """Have the sender thread call `send`, unless the last response has been sent by then."""
        self._frontend.post(self.key, partial(self._send, send))

    def send_last(self, send: Callable[[], None]) -> None:
        """Send the last response from the sender thread; the caller has claimed it with `stop`."""
        self._final_sent = True
        self._frontend.remove(self.key)
        send()

    def _end(self, error: GenerationError) -> None:
        self.release()
        self._post_last(partial(self._sender.fail, error))

    def _post_last(self, send: Callable[[], None]) -> None:
        self._frontend.post(self.key, partial(self.send_last, send))

    def _send(self, send: Callable[[], None]) -> None:
        if not self._final_sent:
            send()
