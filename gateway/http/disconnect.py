"""Disconnects of clients, noticed while their response is being produced."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

import structlog
from starlette.types import Receive

from gateway.errors import GatewayError
from gateway.observability.telemetry import Trace

Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """The client disconnected before the response was complete."""


class DisconnectWatch:
    """Watches for a disconnect during one response, and cancels the task that produces the response."""

    def __init__(self, receive: Receive, trace: Trace) -> None:
        """Start to watch `receive`, the ASGI callable. Sets `trace.disconnected`. The caller must call `close`."""
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
        """Stop watching."""
        self._disconnected.cancel()

    async def run(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        in_own_task: bool = False,
        is_stalled: Callable[[], bool] = lambda: False,
        stall_seconds: float | None = None,
    ) -> Result:
        """Await `work`. Cancel it and raise `ClientDisconnected` when the client disconnects first.

        A client also counts as disconnected when `is_stalled` returns True, which is called every `stall_seconds`.

        `in_own_task=True` runs the work in a task of its own: cheaper for streams, because resuming a task passes
        through all coroutines that await it; slower for a single wait.
        """
        task = asyncio.current_task()
        assert task
        if self._disconnected.done():
            work.close()
            self._trace.disconnected = True
            raise ClientDisconnected
        other_cancellations = task.cancelling()
        timer = _StallTimer(stall_seconds, is_stalled, self._cancel_worker) if stall_seconds else None
        self._worker = task
        try:
            result = await (asyncio.create_task(work) if in_own_task else work)
        except BaseException as error:
            # After a disconnect, any error becomes `ClientDisconnected`. A cancellation by the server is passed on.
            if not self._cancelled or task.uncancel() > other_cancellations:
                raise
            if not isinstance(error, asyncio.CancelledError | GatewayError):
                structlog.get_logger("gateway").exception(
                    "failed after a disconnect", request_id=self._trace.request_id
                )
        else:
            if not self._cancelled:
                return result
            task.uncancel()
        finally:
            self._worker = None
            if timer:
                timer.stop()
        self._trace.disconnected = True
        raise ClientDisconnected

    def _cancel_worker(self, _: object = None) -> None:
        if self._worker and not self._cancelled:
            self._cancelled = True
            self._worker.cancel()


class _StallTimer:
    """Calls `is_stalled` every `seconds`, and `on_stall` as soon as that returns True."""

    def __init__(self, seconds: float, is_stalled: Callable[[], bool], on_stall: Callable[[], None]) -> None:
        self._seconds, self._is_stalled, self._on_stall = seconds, is_stalled, on_stall
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        if self._is_stalled():
            self._on_stall()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)

    def stop(self) -> None:
        self._timer.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
