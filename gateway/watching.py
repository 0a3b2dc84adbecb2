"""Whether the client is still there while an answer is worked on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

import structlog
from starlette.types import Receive

from gateway.errors import GatewayError
from gateway.telemetry import Trace

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client hung up; nobody is left to answer."""


class Watch:
    """Looks out for a hang-up, once for a whole answer, and cancels whoever works on the answer then."""

    def __init__(self, receive: Receive, trace: Trace) -> None:
        """Whoever makes it ends it."""
        self._trace = trace
        self._worker: asyncio.Task[Any] | None = None
        self._given_up = False
        self._gone = asyncio.ensure_future(_hang_up(receive))
        self._gone.add_done_callback(self._give_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Look no longer."""
        self._gone.cancel()

    async def unless_gone(
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
        if self._gone.done():
            work.close()
            self._trace.hung_up = True
            raise ClientGone
        others, clock = task.cancelling(), _Clock(seconds, stuck, self._give_up) if seconds else None
        self._worker = task
        try:
            result = await (asyncio.create_task(work) if apart else work)
        except BaseException as error:
            # However the work ends when it is cancelled; what the server itself cancelled meanwhile stays so.
            if not self._given_up or task.uncancel() > others:
                raise
            if not isinstance(error, asyncio.CancelledError | GatewayError):
                structlog.get_logger("gateway").exception("failed after a hang-up", request_id=self._trace.request_id)
        else:
            if not self._given_up:
                return result
            task.uncancel()
        finally:
            self._worker = None
            if clock:
                clock.stop()
        self._trace.hung_up = True
        raise ClientGone

    def _give_up(self, _: object = None) -> None:
        if self._worker and not self._given_up:
            self._given_up = True
            self._worker.cancel()


class _Clock:
    """Calls `then` when `stuck`, which is asked every so many `seconds`, says so."""

    def __init__(self, seconds: float, stuck: Callable[[], bool], then: Callable[[], None]) -> None:
        self._seconds, self._stuck, self._then = seconds, stuck, then
        self._next = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        if self._stuck():
            self._then()
        else:
            self._next = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def stop(self) -> None:
        self._next.cancel()


async def _hang_up(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
