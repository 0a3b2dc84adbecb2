"""Whether the client is still there while an answer is worked on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

import structlog
from starlette.types import Receive

from gateway.errors import GatewayError
from gateway.observability.telemetry import Trace

Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """The client hung up; nobody is left to answer."""


class DisconnectWatch:
    """Looks out for a hang-up, once for a whole answer, and cancels whoever works on the answer then."""

    def __init__(self, receive: Receive, trace: Trace) -> None:
        """Whoever makes it ends it."""
        self._trace = trace
        self._worker: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._disconnected = asyncio.ensure_future(_wait_for_disconnect(receive))
        self._disconnected.add_done_callback(self._cancel_worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Look no longer."""
        self._disconnected.cancel()

    async def run(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        apart: bool = False,
        stuck: Callable[[], bool] = lambda: False,
        seconds: float | None = None,
    ) -> Result:
        """Await `work`, or cancel it and raise `ClientGone` when the client hangs up first.

        A client of which `stuck`, asked every so many `seconds`, says that it does not read is gone, too. Work that
        waits often does it `apart`, in a task of its own: all that awaits it here is passed through each time that it
        goes on. What waits once is done sooner without.
        """
        task = asyncio.current_task()
        assert task
        if self._disconnected.done():
            work.close()
            self._trace.disconnected = True
            raise ClientDisconnected
        others, clock = task.cancelling(), _StallTimer(seconds, stuck, self._cancel_worker) if seconds else None
        self._worker = task
        try:
            result = await (asyncio.create_task(work) if apart else work)
        except BaseException as error:
            # However the work ends when it is cancelled; what the server itself cancelled meanwhile stays so.
            if not self._cancelled or task.uncancel() > others:
                raise
            if not isinstance(error, asyncio.CancelledError | GatewayError):
                structlog.get_logger("gateway").exception("failed after a hang-up", request_id=self._trace.request_id)
        else:
            if not self._cancelled:
                return result
            task.uncancel()
        finally:
            self._worker = None
            if clock:
                clock.stop()
        self._trace.disconnected = True
        raise ClientDisconnected

    def _cancel_worker(self, _: object = None) -> None:
        if self._worker and not self._cancelled:
            self._cancelled = True
            self._worker.cancel()


class _StallTimer:
    """Calls `then` when `stuck`, which is asked every so many `seconds`, says so."""

    def __init__(self, seconds: float, stuck: Callable[[], bool], then: Callable[[], None]) -> None:
        self._seconds, self._is_stalled, self._on_stall = seconds, stuck, then
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        if self._is_stalled():
            self._on_stall()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)

    def stop(self) -> None:
        self._timer.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
