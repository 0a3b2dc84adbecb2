"""One HTTP/1.1 connection: its timeouts, its refusals, and how it closes. Built on uvicorn's httptools protocol."""

import asyncio
from typing import Any

from gateway.observability.telemetry import valid_request_id
from tritonic.http_server import header_limit
from tritonic.http_server.request_cycle import ReadFlowControl
from tritonic.http_server.request_reader import RequestReader

_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 32 * 1024 * 1024
"""Seconds and bytes for which the connection reads and drops input after its last response. Closing while the client
still sends resets the connection, and the response may be lost with it (RFC 9112, section 9.6)."""


class BoundedProtocol(RequestReader):
    """One connection: the event loop calls it as a transport's protocol, the table of connections as a `Connection`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take uvicorn's arguments and `connections`, the table of connections."""
        super().__init__(*args, **kwargs)
        self._drained_bytes = 0
        self._last_unsent_bytes, self._unsent_since = 0, 0.0

    # The transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection. Refuse it when the table is full."""
        super().connection_made(transport)
        self.flow = ReadFlowControl(transport, self._schedule_advance)
        self.deadline = self.loop.time() + self._connections.limits.head_timeout
        if not self._connections.register(self, self.client[0] if self.client else None):
            self._respond_and_close(header_limit.CONNECTION_LIMIT_REACHED, "refused")

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection and free its buffers."""
        self._discard_buffer()
        self._connections.unregister(self)
        super().connection_lost(exc)
        self.flow.detach()

    def data_received(self, data: bytes) -> None:
        """Parse `data`, or drop it while the connection drains."""
        if self._draining:
            self._drained_bytes += len(data)
            if self._drained_bytes > _DRAIN_BYTES:
                self.transport.abort()
        else:
            super().data_received(data)

    def resume_writing(self) -> None:
        """Take the next request if it waited for the last response to be sent."""
        super().resume_writing()
        self._schedule_advance()

    def shutdown(self) -> None:
        """Close as soon as the request in progress is answered; at once while the connection drains."""
        if self._draining:
            self.transport.abort()
        else:
            super().shutdown()

    # The table's calls

    @property
    def unsent_bytes(self) -> int:
        """Response bytes in the transport's write buffer."""
        return self.transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """True when the transport only sends its buffer and then closes."""
        return self.transport.is_closing()

    def on_deadline(self, now: float) -> None:
        """Close this connection, unless its client is still reading a response.

        A client that reads nothing for `send_timeout` seconds is disconnected.
        """
        unsent = self.unsent_bytes
        if unsent:
            if unsent != self._last_unsent_bytes:
                self._last_unsent_bytes, self._unsent_since = unsent, now
            elif now - self._unsent_since >= self._connections.limits.send_timeout:
                self._connections.count_event("unread")
                self.transport.abort()
            if self._draining:
                self.deadline = now + _DRAIN_SECONDS
        elif self._draining or self.transport.is_closing():
            self.transport.abort()
        elif self._searched_bytes:
            self._reject(header_limit.HEAD_TIMEOUT, "slow")
        else:
            self.transport.close()

    def evict(self) -> None:
        """Abort the connection."""
        self.transport.abort()

    # The end of answers

    def on_response_complete(self) -> None:
        """Wait for the next request, or close the connection. uvicorn calls this after each response."""
        self.server_state.total_requests += 1
        self.headers = []
        cycle = self.cycle
        if cycle is None or self.transport.is_closing() or self._draining:
            return
        self._connections.mark_evictable(self)
        self.deadline = self.loop.time() + self._connections.limits.idle_timeout
        if cycle.stays_open:
            self._schedule_advance()
        elif self._in_body or self._position < len(self._buffer):
            self._drain()
        else:
            self.transport.close()

    def _on_request_received(self, complete: bool) -> None:
        if complete:
            self._connections.mark_busy(self)
        else:
            self._connections.mark_evictable(self, for_body=True)

    def _reject(self, refusal: bytes, why: str) -> None:
        """Respond with `refusal` and read no further request. `why` is the log's word for it."""
        self._connections.count_event(why)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        self._respond_and_close(refusal, why)

    def _respond_and_close(self, refusal: bytes, why: str) -> None:
        if not self.transport.is_closing():
            request_id = self._request_id()
            self._connections.log_refusal(self, request_id, int(refusal[9:12]), why)
            self.transport.write(header_limit.with_request_id(refusal, request_id))
            self._drain()

    def _request_id(self) -> str:
        """Return the id of the request in progress, which has a log line of its own; else the head's, or a new one."""
        cycle = self.cycle
        trace = cycle.scope.get("state", {}).get("trace") if cycle is not None and not cycle.response_complete else None
        if trace is not None:
            return str(trace.request_id)
        given = next((value for name, value in self.headers or () if name == b"x-request-id"), b"")
        request_id = valid_request_id(given.decode("latin-1"))
        if not given and cycle is not None and cycle.scope["headers"] is self.headers:
            self.headers.append((b"x-request-id", request_id.encode("ascii")))  # the application has not started yet
        return request_id

    def _drain(self) -> None:
        """Close the writing side, and drop what the client sends for a moment more."""
        self._draining = True
        self._discard_buffer()
        self._connections.mark_evictable(self)
        self.deadline = self.loop.time() + _DRAIN_SECONDS
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_now()
        else:
            self.transport.close()

    def _discard_buffer(self) -> None:
        self._buffer, self._position = b"", 0
        self._connections.buffered_bytes -= self._reported_bytes
        self._reported_bytes = 0
