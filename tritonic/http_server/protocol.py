"""A connection: how it begins, how long it may wait, and how it is closed. HTTP/1.1 as uvicorn speaks it."""

import asyncio
from typing import Any

from gateway.observability.telemetry import valid_request_id
from tritonic.http_server import header_limit
from tritonic.http_server.request_cycle import ReadFlowControl
from tritonic.http_server.request_reader import RequestReader

_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 32 * 1024 * 1024
"""What is read and dropped after the last answer of a connection. A connection that is closed while its client still
sends is reset, and the answer may be lost with it (RFC 9112, section 9.6)."""


class BoundedProtocol(RequestReader):
    """One connection, as the table of connections and the event loop know it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Takes what uvicorn gives, and `connections`, the table."""
        super().__init__(*given, **named)
        self._drained_bytes = 0
        self._last_unsent_bytes, self._unsent_since = 0, 0.0

    # The transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse a connection that is one too many."""
        super().connection_made(transport)
        self.flow = ReadFlowControl(transport, self._schedule_advance)
        self.deadline = self.loop.time() + self._connections.limits.head_timeout
        if not self._connections.register(self, self.client[0] if self.client else None):
            self._respond_and_close(header_limit.CONNECTION_LIMIT_REACHED, "refused")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._discard_buffer()
        self._connections.unregister(self)
        super().connection_lost(exc)
        self.flow.detach()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._draining:
            self._drained_bytes += len(data)
            if self._drained_bytes > _DRAIN_BYTES:
                self.transport.abort()
        else:
            super().data_received(data)

    def resume_writing(self) -> None:
        """Go on with the next request, if it waits for the last answer to be sent."""
        super().resume_writing()
        self._schedule_advance()

    def shutdown(self) -> None:
        """End as soon as what is under way is answered."""
        if self._draining:
            self.transport.abort()
        else:
            super().shutdown()

    # The table's calls

    @property
    def unsent_bytes(self) -> int:
        """What the transport holds of answers."""
        return self.transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """Whether the transport only sends what was written."""
        return self.transport.is_closing()

    def on_deadline(self, now: float) -> None:
        """End this connection, unless its client is still reading an answer."""
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
        """End at once."""
        self.transport.abort()

    # The end of answers

    def on_response_complete(self) -> None:
        """Wait for the next request, or close the connection."""
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

    def _on_request_received(self, whole: bool) -> None:
        if whole:
            self._connections.mark_busy(self)
        else:
            self._connections.mark_evictable(self, for_body=True)

    def _reject(self, refusal: bytes, why: str) -> None:
        """Answer what cannot be understood, and take no more."""
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
            named = self._request_id()
            self._connections.log_refusal(self, named, int(refusal[9:12]), why)
            self.transport.write(header_limit.with_request_id(refusal, named))
            self._drain()

    def _request_id(self) -> str:
        """That of the request under way, which has a line of its own; else that of the head, or a new one."""
        cycle = self.cycle
        trace = cycle.scope.get("state", {}).get("trace") if cycle is not None and not cycle.response_complete else None
        if trace is not None:
            return str(trace.request_id)
        given = next((value for name, value in self.headers or () if name == b"x-request-id"), b"")
        chosen = valid_request_id(given.decode("latin-1"))
        if not given and cycle is not None and cycle.scope["headers"] is self.headers:
            self.headers.append((b"x-request-id", chosen.encode("ascii")))  # the application has not begun yet
        return chosen

    def _drain(self) -> None:
        """Say that nothing follows, and drop what comes for a moment more."""
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
