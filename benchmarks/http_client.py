"""A minimal HTTP/1.1 client.

It runs on the same cores as the measured server, so its CPU time lowers the measured rates. It competes with
perf_analyzer, which is written in C++, and is therefore kept small.
"""

import asyncio
import time
from typing import Self, TypeAlias, cast
from urllib.parse import urlsplit

import httptools

_TIMEOUT_SECONDS = 300.0
"""Seconds that a whole response may take."""
CLIENT_ERRORS = (httptools.HttpParserError, TimeoutError, OSError)
"""The exceptions that `HttpClient` raises."""

ResponseChunk: TypeAlias = tuple[int, bytes]
"""A part of a response body: its arrival in nanoseconds of the monotonic clock, and its bytes."""


def build_request(url: str, content: bytes) -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    address = urlsplit(url)
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class HttpClient(asyncio.Protocol):
    """One connection. It is reused for the next request if the server keeps it open."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._status: asyncio.Future[int] | None = None
        self._parts: list[ResponseChunk] = []
        self._arrived_at = 0

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Open a connection. Raises `OSError`, and `ValueError` if `url` names no host."""
        address = urlsplit(url)
        if address.hostname is None:
            raise ValueError(f"{url!r} names no host")
        port = address.port or 80
        _, client = await asyncio.get_running_loop().create_connection(cls, address.hostname, port)
        return client

    async def send(self, message: bytes, parts: list[ResponseChunk]) -> int:
        """Send a request, append the chunks of its response to `parts`, and return the status.

        Raises one of CLIENT_ERRORS: `OSError` if the connection ends before the response, `TimeoutError` if the
        response takes too long.
        """
        self._parts = parts
        self._parser = httptools.HttpResponseParser(self)
        self._status = asyncio.get_running_loop().create_future()
        assert self._transport
        self._transport.write(message)
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await self._status

    @property
    def closed(self) -> bool:
        """True if the connection cannot take another request."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._transport.abort()

    # asyncio.Protocol, and httptools' callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._arrived_at = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_body(self, part: bytes) -> None:
        self._parts.append((self._arrived_at, part))

    def on_message_complete(self) -> None:
        if self._status and not self._status.done():
            self._status.set_result(self._parser.get_status_code())
        if not self._parser.should_keep_alive():
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("the connection was closed"))

    def _fail(self, error: Exception) -> None:
        if self._status and not self._status.done():
            self._status.set_exception(error)
