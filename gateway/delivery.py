"""How an answer leaves, the same for every operation and every dialect: folded whole, or as server-sent events.

A client that hangs up stops the model, in both cases and at any moment: the stream of events is closed, which cancels
the request in Triton. Starlette notices a hang-up only while a body is being sent, so the waits here watch for it.

A client that reads slowly slows its own model down: no event is asked for before the last one was sent, and gRPC's flow
control hands that on to Triton. One that reads nothing for the setting `send_timeout` has hung up.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import GatewayError, Overloaded
from gateway.settings import Settings
from gateway.telemetry import Trace

Event = TypeVar("Event")
Folded = TypeVar("Folded")


class ClientGone(Exception):
    """The client hung up; nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Named:
    """The data of a server-sent event that bears a name, which browsers' `EventSource` listens for."""

    name: str
    data: bytes


async def whole(request: Request, folded: Coroutine[Any, Any, Folded]) -> Folded:
    """Await `folded`, the fold of a stream of events. Raises `ClientGone` as soon as the client hangs up."""
    with _Watch(request.receive, request.state.trace) as watch:
        return await watch.unless_gone(folded, apart=True)


async def sse(
    request: Request,
    events: AsyncGenerator[Event],
    render: Callable[[Event], Iterable[bytes | Named]],
    render_error: Callable[[GatewayError], bytes],
    done: bytes | None = None,
) -> Response:
    """Return a response that sends what `render` makes of each event.

    The first event is awaited here, so that an early failure is raised and still has a true status. A later failure
    leaves as one event made by `render_error`, without `done`. Raises `ClientGone`.
    """
    trace: Trace = request.state.trace
    watch = _Watch(request.receive, trace)
    try:
        first = await watch.unless_gone(anext(events))
    except BaseException:
        watch.end()
        await events.aclose()
        raise
    settings: Settings = request.app.state.settings
    return _EventStream(first, events, render, render_error, done, trace, watch, settings.send_timeout)


class _Watch:
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
        work: Coroutine[Any, Any, Folded],
        *,
        apart: bool = False,
        stuck: Callable[[], bool] = lambda: False,
        seconds: float | None = None,
    ) -> Folded:
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
        except BaseException:
            # However the work ends when it is cancelled; what the server itself cancelled meanwhile stays so.
            if not self._given_up or task.uncancel() > others:
                raise
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


class _EventStream(Response):
    """A body of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: Event,
        events: AsyncGenerator[Event],
        render: Callable[[Event], Iterable[bytes | Named]],
        render_error: Callable[[GatewayError], bytes],
        done: bytes | None,
        trace: Trace,
        watch: _Watch,
        send_timeout: float,
    ) -> None:
        # Proxies must neither hold events back nor keep them.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first, self._events = first, events
        self._render, self._render_error, self._done = render, render_error, done
        self._trace, self._watch = trace, watch
        self._send_timeout = send_timeout
        # Messages that were begun to be sent, and that were: no clock is looked at for each.
        self._begun = self._sent = 0
        self._seen: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._watch.unless_gone(
                self._send_all(send), apart=True, stuck=self._stuck, seconds=self._send_timeout
            )
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # Only the server itself cancels an answer, when it stops before the answer is done.
            last = self._failure(Overloaded("The service is stopping."))
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            self._watch.end()
            await self._events.aclose()

    def _stuck(self) -> bool:
        """Whether the message that is being sent now was when this was asked last."""
        sending = self._begun if self._begun > self._sent else None
        before, self._seen = self._seen, sending
        return sending is not None and sending == before

    def _failure(self, error: GatewayError) -> bytes:
        """The event that says how the stream failed."""
        self._trace.error = error
        return _line(self._render_error(error))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last = b""
        async with aclosing(self._events):
            try:
                await self._send_event(send, self._first)
                async for event in self._events:
                    await self._send_event(send, event)
                if self._done is not None:
                    last = _line(self._done)
            except GatewayError as error:
                last = self._failure(error)
            except Exception:
                structlog.get_logger("gateway").exception("stream failed", request_id=self._trace.request_id)
                last = self._failure(GatewayError("The gateway failed while it sent the answer."))
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send_event(self, send: Send, event: object) -> None:
        body = b"".join(_line(data) for data in self._render(event))  # type: ignore[arg-type]
        if body:
            self._begun += 1
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self._sent += 1


def _line(data: bytes | Named) -> bytes:
    if isinstance(data, Named):
        return b"event: " + data.name.encode() + b"\ndata: " + data.data + b"\n\n"
    return b"data: " + data + b"\n\n"
