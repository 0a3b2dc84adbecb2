"""GET and POST requests over HTTP/1.1 to a server that is not trusted.

Everything that the server sends is limited: bytes of headers, informational responses, and bytes that do not belong to
the file. The response is read in pieces, and other tasks run between two pieces, so that timeouts work.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import httptools

from gateway.media.inline_data import too_large_error
from gateway.media.invalid_media import InvalidMedia

if TYPE_CHECKING:
    from yarl import URL

ByteCounter: TypeAlias = Callable[[int], None]
"""Called with the number of bytes of each piece. Raises `InvalidMedia` when there are too many."""

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Takes over a piece of the body, decompressed. Raises the errors of its owner."""

T = TypeVar("T")

_CHUNK_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 64 * 1024
"""Most bytes of all headers, including those of informational responses."""
_MAX_INFORMATIONAL_RESPONSES = 8
"""Most responses with a status of 1xx (RFC 9110, section 15.2). Servers send one or two."""
_MAX_CHUNK_OVERHEAD_BYTES = 256 * 1024
"""Most bytes of the sizes and extensions of chunks, beyond the length of the body. Servers send chunks that are far
longer than these."""
_ZLIB_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""`wbits` of zlib by content encoding. Some servers compress though the request does not ask for it."""
_NOT_FETCHED = "its URL could not be fetched: "
_BAD_SERVER = _NOT_FETCHED + "its host did not send a valid HTTP response"
_TRUNCATED = _NOT_FETCHED + "the response is truncated or damaged"
_BAD_TLS = _NOT_FETCHED + "the TLS connection to its host failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A response, without its body."""

    status: int
    location: str | None
    declared_type: str
    """The media type that the server claims, or empty."""


async def get(
    connection: socket.socket, url: "URL", *, tls: ssl.SSLContext | None, max_bytes: int, write: Write
) -> HttpResponse:
    """Send a GET request over a connected socket, close the socket, and return the response.

    `max_bytes` limits the body. `write` is called with each piece of the body of a response with the status 200. Raises
    `InvalidMedia`, and what `write` raises.
    """
    request = _head("GET", url, {"Accept": "*/*", "Accept-Encoding": "identity"})
    return await _exchange(connection, url, tls, request, lambda reader: _read(reader, max_bytes, write))


async def post(
    connection: socket.socket, url: "URL", *, tls: ssl.SSLContext | None, headers: Mapping[str, str], body: bytes
) -> int:
    """Send a POST request over a connected socket, close the socket, and return the status of the response.

    The body of the response is not read. Raises `InvalidMedia`.
    """
    request = _head("POST", url, {**headers, "Content-Length": str(len(body))}) + body
    return await _exchange(connection, url, tls, request, _read_status)


def _head(method: str, url: "URL", headers: Mapping[str, str]) -> bytes:
    common = {"Host": url.host_port_subcomponent, "User-Agent": "Tritonic", "Connection": "close"}
    lines = [
        f"{method} {url.raw_path_qs} HTTP/1.1",
        *(f"{name}: {text}" for name, text in {**common, **headers}.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


async def _exchange(
    connection: socket.socket,
    url: "URL",
    tls: ssl.SSLContext | None,
    request: bytes,
    read: Callable[[asyncio.StreamReader], Awaitable[T]],
) -> T:
    """Send `request`, return what `read` returns for the response, and close the socket."""
    name = (url.raw_host or "").rstrip(".") if tls else None
    try:
        reader, writer = await asyncio.open_connection(
            sock=connection, ssl=tls, server_hostname=name, limit=_CHUNK_BYTES
        )
    except ssl.SSLCertVerificationError:
        raise InvalidMedia(_NOT_FETCHED + "the certificate of its host is not valid") from None
    except OSError:  # SSLError is one
        raise InvalidMedia(_BAD_TLS if tls else _BAD_SERVER) from None
    try:
        writer.write(request)
        return await read(reader)
    except ssl.SSLError:
        raise InvalidMedia(_BAD_TLS) from None
    except OSError:
        raise InvalidMedia(_TRUNCATED) from None
    finally:
        writer.transport.abort()  # do not wait for the server


async def _read_status(reader: asyncio.StreamReader) -> int:
    """Return the status of a response once its headers are complete."""
    response = _ResponseParser(max_bytes=None)
    received_bytes = 0
    while not response.headers_complete:
        piece = await reader.read(_CHUNK_BYTES)
        received_bytes += len(piece)
        if not piece or received_bytes > _MAX_HEADER_BYTES + _CHUNK_BYTES:
            raise InvalidMedia(_BAD_SERVER)
        try:
            response.parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not response.headers_complete:
                raise response.error or InvalidMedia(_BAD_SERVER) from None
    return response.status


async def _read(reader: asyncio.StreamReader, max_bytes: int, write: Write) -> HttpResponse:
    response = _ResponseParser(max_bytes)
    parser = response.parser
    received_bytes = body_bytes = unpacked_bytes = 0
    while not response.message_complete:
        piece = await reader.read(_CHUNK_BYTES)
        if not piece:
            response.check_eof()
            break
        received_bytes += len(piece)
        try:
            parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise response.error or InvalidMedia(_TRUNCATED if response.headers_complete else _BAD_SERVER) from None
        if not response.headers_complete:
            if received_bytes > _MAX_HEADER_BYTES:
                raise InvalidMedia(_BAD_SERVER)
        elif response.status != 200:
            break
        part = response.take_body()
        body_bytes += len(part)
        for unpacked in response.decompress(part):
            unpacked_bytes += len(unpacked)
            if unpacked_bytes > max_bytes:
                raise too_large_error(max_bytes)
            await write(unpacked)
            await asyncio.sleep(0)
        if body_bytes > max_bytes:
            raise too_large_error(max_bytes)
        if (
            response.headers_complete
            and received_bytes - body_bytes > _MAX_HEADER_BYTES + _MAX_CHUNK_OVERHEAD_BYTES + body_bytes
        ):
            raise InvalidMedia(_TRUNCATED)
        await asyncio.sleep(0)  # a read does not yield to others while data are buffered
    response.check_complete()
    return HttpResponse(
        status=response.status,
        location=response.get("location"),
        declared_type=response.declared_type(),
    )


class _ResponseParser:
    """Collects the callbacks of the parser for a response and its informational responses."""

    def __init__(self, max_bytes: int | None) -> None:
        """`max_bytes` limits the body; None: the body is of no interest."""
        self._max_bytes = max_bytes
        self.parser = httptools.HttpResponseParser(self)
        self._num_informational = 0
        self._headers: dict[str, bytes] = {}
        self._body: list[bytes] = []
        self._decompressor: zlib._Decompress | None = None
        self.status = 0
        self.headers_complete = False
        """True once the headers of the final response are complete."""
        self.message_complete = False
        self.error: InvalidMedia | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.decode("latin-1").lower(), value)

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status < 200:
            self._num_informational += 1
            if self._num_informational > _MAX_INFORMATIONAL_RESPONSES or self.status == 101:
                self._fail(InvalidMedia(_BAD_SERVER))
            self._headers.clear()
            return
        self.headers_complete = True
        if self.status != 200 or self._max_bytes is None:
            return
        length = self.get("content-length") or ""
        if length.isdecimal() and (len(length) > 18 or int(length) > self._max_bytes):
            self._fail(too_large_error(self._max_bytes))
        encoding = (self.get("content-encoding") or "identity").strip().lower()
        if encoding in _ZLIB_WBITS:
            self._decompressor = zlib.decompressobj(_ZLIB_WBITS[encoding])
        elif encoding != "identity":
            self._fail(InvalidMedia(f"{_NOT_FETCHED}its content encoding '{encoding[:30]}' is not supported"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.message_complete = self.headers_complete

    def take_body(self) -> bytes:
        """Return the bytes of the body since the last call."""
        body, self._body = b"".join(self._body), []
        return body

    def decompress(self, part: bytes) -> Iterator[bytes]:
        """Yield a part of the body, decompressed, in pieces. Raises `InvalidMedia`."""
        if self._decompressor is None:
            if part:
                yield part
            return
        try:
            while part and not self._decompressor.eof:
                yield self._decompressor.decompress(part, 4 * _CHUNK_BYTES)
                part = self._decompressor.unconsumed_tail
        except zlib.error:
            raise InvalidMedia(_TRUNCATED) from None

    def check_eof(self) -> None:
        """Raise `InvalidMedia` if the connection was closed before the end of the response."""
        if not self.headers_complete:
            raise InvalidMedia(_BAD_SERVER)
        if "content-length" in self._headers or "transfer-encoding" in self._headers:
            raise InvalidMedia(_TRUNCATED)

    def check_complete(self) -> None:
        """Raise `InvalidMedia` if the compressed data are cut off."""
        if self._decompressor is not None and not self._decompressor.eof:
            raise InvalidMedia(_TRUNCATED)

    def get(self, name: str) -> str | None:
        """Return the first header with a name, decoded from UTF-8, None if there is none."""
        value = self._headers.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    def declared_type(self) -> str:
        return (self.get("content-type") or "").partition(";")[0].strip().lower()

    def _fail(self, error: InvalidMedia) -> None:
        self.error = error
        raise error  # ends the parsing
