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
from typing import Any, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import GatewayError, Overloaded
from gateway.http.disconnect import ClientDisconnected, DisconnectWatch
from gateway.observability.telemetry import Trace
from gateway.settings import Settings

_CHUNK_BYTES = 64 * 1024
"""Bytes that are sent at a time: of whoever must read more before the next ones nobody could tell whether it reads."""

_LINE_SEPARATORS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""What JSON may hold as it is, and many a client takes for the end of a line, as Python's `splitlines` does."""

Event = TypeVar("Event")
Folded = TypeVar("Folded")


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """The data of a server-sent event that bears a name, which browsers' `EventSource` listens for."""

    name: str
    data: bytes


async def whole(request: Request, folded: Coroutine[Any, Any, Folded]) -> Folded:
    """Await `folded`, the fold of a stream of events. Raises `ClientGone` as soon as the client hangs up."""
    with DisconnectWatch(request.receive, request.state.trace) as watch:
        return await watch.run(folded, apart=True)


async def sse(
    request: Request,
    events: AsyncGenerator[Event],
    render: Callable[[Event], Iterable[bytes | NamedEvent]],
    render_error: Callable[[GatewayError], bytes | NamedEvent],
    done: bytes | None = None,
) -> Response:
    """Return a response that sends what `render` makes of each event.

    The first event is awaited here, so that an early failure is raised and still has a true status. A later failure
    leaves as one event made by `render_error`, without `done`. Raises `ClientGone`.
    """
    trace: Trace = request.state.trace
    watch = DisconnectWatch(request.receive, trace)
    try:
        first = await watch.run(anext(events))
    except BaseException:
        watch.close()
        await events.aclose()
        raise
    settings: Settings = request.app.state.settings
    return _EventStream(first, events, render, render_error, done, trace, watch, settings.send_timeout)


class _EventStream(Response):
    """A body of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: Event,
        events: AsyncGenerator[Event],
        render: Callable[[Event], Iterable[bytes | NamedEvent]],
        render_error: Callable[[GatewayError], bytes | NamedEvent],
        done: bytes | None,
        trace: Trace,
        watch: DisconnectWatch,
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
        self._started_messages = self._sent_messages = 0
        self._mid_event = self._is_complete = False
        self._last_checked_message: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._watch.run(self._send_all(send), apart=True, stuck=self._is_stalled, seconds=self._send_timeout)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            # Only the server itself cancels an answer, when it stops before the answer is done.
            if not self._is_complete:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self._end(send, self._error_event(Overloaded("The service is stopping.")))
        finally:
            self._watch.close()
            await self._events.aclose()

    def _is_stalled(self) -> bool:
        """Whether the message that is being sent now was when this was asked last."""
        sending = self._started_messages if self._started_messages > self._sent_messages else None
        before, self._last_checked_message = self._last_checked_message, sending
        return sending is not None and sending == before

    def _error_event(self, error: GatewayError) -> bytes:
        """The event that says how the stream failed."""
        self._trace.error = error
        return _format_event(self._render_error(error))

    async def _send_all(self, send: Send) -> None:
        await self._begin(send)
        last = b""
        async with aclosing(self._events):
            try:
                await self._send_event(send, self._first)
                async for event in self._events:
                    await self._send_event(send, event)
                if self._done is not None:
                    last = _format_event(self._done)
            except GatewayError as error:
                last = self._error_event(error)
            except Exception:
                structlog.get_logger("gateway").exception("stream failed", request_id=self._trace.request_id)
                last = self._error_event(GatewayError("The gateway failed while it sent the answer."))
        await self._end(send, last)

    async def _begin(self, send: Send) -> None:
        self._started_messages += 1
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._sent_messages += 1

    async def _send_event(self, send: Send, event: object) -> None:
        body = b"".join(_format_event(data) for data in self._render(event))  # type: ignore[arg-type]
        for at in range(0, len(body), _CHUNK_BYTES):
            self._started_messages += 1
            await send(_body_message(body[at : at + _CHUNK_BYTES], more=True))
            self._sent_messages += 1
            self._mid_event = at + _CHUNK_BYTES < len(body)

    async def _end(self, send: Send, last: bytes) -> None:
        """Send the last message, unless another one is cut off: then the connection is closed, as uvicorn does."""
        if not self._sent_messages:
            await self._begin(send)
        if self._mid_event:
            return
        self._started_messages += 1
        await send(_body_message(last, more=False))
        self._sent_messages += 1
        self._is_complete = True


def _body_message(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _format_event(data: bytes | NamedEvent) -> bytes:
    """An event, whose data are JSON or a word: what breaks lines stands in strings alone, where it may be escaped."""
    start = b"data: "
    if isinstance(data, NamedEvent):
        start, data = b"event: " + data.name.encode() + b"\ndata: ", data.data
    if 0xE2 in data or 0xC2 in data:  # their first bytes, which are looked for in no time
        for char, escaped in _LINE_SEPARATORS:
            data = data.replace(char, escaped)
    return start + data + b"\n\n"
