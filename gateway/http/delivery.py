"""Delivery of responses, the same for every operation and every dialect: whole, as server-sent events, or as raw bytes.

A client that disconnects stops the model at any moment, whether the response is streamed or whole: the stream of events
is closed, which cancels the request in Triton. Starlette notices a disconnect only while it sends a body, so this
module watches for one from the start.

Backpressure: the next event is read only after the last one was sent, so that a slow reader slows its own model down.
gRPC's flow control extends that to Triton. A client that reads nothing for the setting `send_timeout` is treated as
disconnected.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import GatewayError, Overloaded
from gateway.http.disconnect import ClientDisconnected, DisconnectWatch
from gateway.http.framings import Framing, NamedEvent, RawBytes, ServerSentEvents
from gateway.observability.telemetry import Trace
from gateway.settings import Settings

__all__ = ["NamedEvent", "raw", "sse", "whole"]

_CHUNK_BYTES = 64 * 1024
"""Largest message, in bytes. With larger messages, a slow reader would look like one that has stopped."""

_STOP_SECONDS = 1.0
"""Timeout for sending the error event to a client when the server shuts down, in seconds."""

Event = TypeVar("Event")
Result = TypeVar("Result")


async def whole(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` and return its result. Raises `ClientDisconnected` as soon as the client disconnects."""
    with DisconnectWatch(request.receive, request.state.trace) as watch:
        return await watch.run(work, in_own_task=True)


async def sse(
    request: Request,
    events: AsyncGenerator[Event],
    render: Callable[[Event], Iterable[bytes | NamedEvent]],
    render_error: Callable[[GatewayError], bytes | NamedEvent],
    done: bytes | NamedEvent | None = None,
) -> Response:
    """Return a response of server-sent events (`ServerSentEvents` describes the parameters).

    The first event is awaited here, so that an early failure is raised and gets its own status code. A later failure
    is sent as one event made by `render_error`, without `done`. Raises `ClientDisconnected`.
    """
    return await _stream(request, events, anext(events), ServerSentEvents(render, render_error, done))


async def raw(
    request: Request,
    chunks: AsyncGenerator[bytes],
    media_type: str,
    *,
    headers: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    """Return a response whose body is `chunks`: audio, or a file. There may be none.

    The first chunk is awaited here, so that an early failure is raised and gets its own status code. A later failure
    closes the connection before the body is complete. Raises `ClientDisconnected`.
    """
    return await _stream(request, chunks, anext(chunks, b""), RawBytes(media_type, headers or {}), status)


async def _stream(
    request: Request,
    events: AsyncGenerator[Event],
    first_event: Coroutine[Any, Any, Event],
    framing: Framing[Event],
    status: int = 200,
) -> Response:
    trace: Trace = request.state.trace
    watch = DisconnectWatch(request.receive, trace)
    try:
        first = await watch.run(first_event)
    except BaseException:
        watch.close()
        await events.aclose()
        raise
    settings: Settings = request.app.state.settings
    return _StreamedResponse(first, events, framing, status, trace, watch, settings.send_timeout)


class _StreamedResponse(Response, Generic[Event]):
    """A body that is sent event by event."""

    def __init__(
        self,
        first: Event,
        events: AsyncGenerator[Event],
        framing: Framing[Event],
        status: int,
        trace: Trace,
        watch: DisconnectWatch,
        send_timeout: float,
    ) -> None:
        """Take over `watch`, which is closed when the response ends. `send_timeout` is in seconds."""
        # `Response.__init__` is not called, as in Starlette's StreamingResponse: it would set Content-Length.
        self.status_code, self.media_type, self.background = status, framing.media_type, None
        self.init_headers(framing.headers)
        self._first, self._events = first, events
        self._framing, self._encode = framing, framing.encode
        self._trace, self._watch = trace, watch
        self._send_timeout = send_timeout
        # `_is_stalled` compares counts of messages, so that sending a message does not read the clock.
        self._started_messages = self._sent_messages = 0
        self._mid_event = self._is_complete = False
        self._last_checked_message: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._watch.run(
                self._send_all(send), in_own_task=True, is_stalled=self._is_stalled, stall_seconds=self._send_timeout
            )
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            # Only the server cancels a response, when it shuts down.
            if not self._is_complete:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await self._end(send, self._fail(Overloaded("The service is stopping.")))
        finally:
            self._watch.close()
            await self._events.aclose()

    def _is_stalled(self) -> bool:
        """Return whether the message that is being sent is the same one as at the last call."""
        sending = self._started_messages if self._started_messages > self._sent_messages else None
        before, self._last_checked_message = self._last_checked_message, sending
        return sending is not None and sending == before

    def _fail(self, error: GatewayError) -> bytes | None:
        """Record a late failure, and return the bytes that end the body; None: the connection is closed."""
        self._trace.error = error
        return self._framing.encode_error(error)

    async def _send_all(self, send: Send) -> None:
        await self._begin(send)
        last: bytes | None
        async with aclosing(self._events):
            try:
                await self._send_event(send, self._first)
                async for event in self._events:
                    await self._send_event(send, event)
                last = self._framing.encode_end()
            except GatewayError as error:
                last = self._fail(error)
            except Exception:
                structlog.get_logger("gateway").exception("stream failed", request_id=self._trace.request_id)
                last = self._fail(
                    GatewayError("The gateway failed because of an internal error while it sent the response.")
                )
        await self._end(send, last)

    async def _begin(self, send: Send) -> None:
        self._started_messages += 1
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._sent_messages += 1

    async def _send_event(self, send: Send, event: Event) -> None:
        body = self._encode(event)
        for at in range(0, len(body), _CHUNK_BYTES):
            self._started_messages += 1
            await send(_body_message(body[at : at + _CHUNK_BYTES], more=True))
            self._sent_messages += 1
            self._mid_event = at + _CHUNK_BYTES < len(body)

    async def _end(self, send: Send, last: bytes | None) -> None:
        """Send the last message.

        Where `last` is None, or an event was cut off, nothing is sent: uvicorn then closes the connection, and the
        client sees that the body is not complete.
        """
        if last is None or self._mid_event:
            return
        if not self._sent_messages:
            await self._begin(send)
        self._started_messages += 1
        await send(_body_message(last, more=False))
        self._sent_messages += 1
        self._is_complete = True


def _body_message(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
