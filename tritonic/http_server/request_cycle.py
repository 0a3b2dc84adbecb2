"""uvicorn's request-response cycle and flow control, with the changes that this server needs."""

import asyncio
from collections.abc import Callable

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class RequestCycle(RequestResponseCycle):
    """A request and its response. uvicorn reads `keep_alive` when the response starts and when it ends."""

    _stays_open = True

    @property
    def keep_alive(self) -> bool:
        """True when the response may promise to keep the connection open: only after the whole request has arrived."""
        if self.response_complete:
            return True  # `BoundedProtocol` decides how the connection closes
        if self.more_body:
            self._stays_open = False
        return self._stays_open

    @keep_alive.setter
    def keep_alive(self, value: bool) -> None:
        self._stays_open = value

    @property
    def stays_open(self) -> bool:
        """True when the connection stays open after this response."""
        return self._stays_open


class Http10RequestCycle(RequestCycle):
    """An HTTP/1.0 cycle. HTTP/1.0 has no chunks: a response without a length ends with the connection (RFC 9112, 6.3).

    The connection stays open only if the client asked for that and the response has a length.
    """

    _unknown_length = False

    async def send(self, message: ASGISendEvent) -> None:
        """Send one ASGI message of the response."""
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            bodiless = self.scope["method"] == "HEAD" or message["status"] in (204, 304)
            if not bodiless and not any(name.lower() == b"content-length" for name, _ in headers):
                self._unknown_length, self.keep_alive = True, False
                self.chunked_encoding = False
            elif self.keep_alive and not any(name.lower() == b"connection" for name, _ in headers):
                message["headers"] = [*headers, (b"connection", b"keep-alive")]
        elif message["type"] == "http.response.body" and self._unknown_length:
            self.expected_content_length = len(message.get("body", b""))  # uvicorn counts down to 0
        await super().send(message)


class ReadFlowControl(FlowControl):
    """Flow control that resumes reading only after the connection has parsed what it already holds."""

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resume = on_resume

    def resume_reading(self) -> None:
        """Let the connection parse its buffer: the application waits for a body or a disconnect."""
        if self.read_paused:
            self._on_resume()

    def detach(self) -> None:
        """Drop the reference to a lost connection, so that neither object needs the garbage collector."""
        self._on_resume = _noop

    def resume_now(self) -> None:
        """Resume reading from the transport."""
        super().resume_reading()


def _noop() -> None:
    pass
