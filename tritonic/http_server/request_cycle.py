"""A request with its answer, and the two directions of the connection that they travel on; both are uvicorn's."""

import asyncio
from collections.abc import Callable

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class RequestCycle(RequestResponseCycle):
    """A request and its answer. uvicorn looks at `keep_alive` when the answer begins, and when it ends."""

    _stays_open = True

    @property
    def keep_alive(self) -> bool:
        """Whether the answer promises that the connection stays: not before the whole request is there."""
        if self.response_complete:
            return True  # the connection itself decides how it is closed
        if self.more_body:
            self._stays_open = False
        return self._stays_open

    @keep_alive.setter
    def keep_alive(self, lasts: bool) -> None:
        self._stays_open = lasts

    @property
    def stays_open(self) -> bool:
        """Whether the connection stays after this answer."""
        return self._stays_open


class Http10RequestCycle(RequestCycle):
    """One of HTTP/1.0, which knows no chunks: an answer of unknown length ends with the connection (RFC 9112, 6.3).

    A connection stays where the client has asked for it, and the answer says how long it is.
    """

    _unknown_length = False

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            bodiless = self.scope["method"] == "HEAD" or message["status"] in (204, 304)
            if not bodiless and not any(name.lower() == b"content-length" for name, _ in headers):
                self._unknown_length, self.keep_alive = True, False
                self.chunked_encoding = False
            elif self.keep_alive and not any(name.lower() == b"connection" for name, _ in headers):
                message["headers"] = [*headers, (b"connection", b"keep-alive")]
        elif message["type"] == "http.response.body" and self._unknown_length:
            self.expected_content_length = len(message.get("body", b""))  # uvicorn counts down to its end
        await super().send(message)


class ReadFlowControl(FlowControl):
    """Reading goes on only when the connection has seen to what it holds already."""

    def __init__(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resume = go_on

    def resume_reading(self) -> None:
        """Ask the connection, on behalf of an application that waits for a body or a hang-up."""
        if self.read_paused:
            self._on_resume()

    def detach(self) -> None:
        """Let go of the connection, which is gone: else both would wait for the garbage collector."""
        self._on_resume = _noop

    def resume_now(self) -> None:
        """Read again."""
        super().resume_reading()


def _noop() -> None:
    pass
