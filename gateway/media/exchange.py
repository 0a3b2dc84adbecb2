"""One GET of HTTP/1.1, in which the server is trusted with nothing.

What it may send is bounded before it is read: bytes of heads, answers that announce another one, bytes that are no part
of the file. It is read by pieces, between which others have their turn, so that the time that it has holds.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import httptools

from gateway.media.inline import too_large
from gateway.media.unusable import Unusable

if TYPE_CHECKING:
    from yarl import URL

Take: TypeAlias = Callable[[int], None]
"""Is told of bytes as they come, and raises `Unusable` where they are too many."""

_PIECE = 64 * 1024
_LONGEST_HEAD = 64 * 1024
"""Bytes of all heads, those of answers that announce another one included."""
_MOST_ANNOUNCED = 8
"""Answers of a status of 1xx (RFC 9110, 15.2): nobody sends more than one or two."""
_MOST_WRAPPING = 256 * 1024
"""Bytes of chunks' sizes and extensions, besides as many as the body has: servers' chunks are far longer than these."""
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""What zlib calls the formats; servers send them though they are not asked for."""
_ABOUT = "its URL could not be fetched: "
_NO_SERVER = _ABOUT + "its host does not answer as a web server should"
_CUT_OFF = _ABOUT + "the answer is cut off or broken"
_NO_TLS = _ABOUT + "its host does not speak TLS as it should"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server sent: `data` where the status is 200, nothing else of the body of others."""

    status: int
    location: str | None
    declared: str
    """The media type that it claims; empty where it claims none."""
    data: bytes


async def get(way: socket.socket, url: "URL", *, tls: ssl.SSLContext | None, max_bytes: int, take: Take) -> Answer:
    """Ask for `url` over a connected socket, which is closed. Raises `Unusable`."""
    name = (url.raw_host or "").rstrip(".") if tls else None
    try:
        reader, writer = await asyncio.open_connection(sock=way, ssl=tls, server_hostname=name, limit=_PIECE)
    except ssl.SSLCertVerificationError:
        raise Unusable(_ABOUT + "the certificate of its host is not valid") from None
    except OSError:  # what ssl raises is one, too
        raise Unusable(_NO_TLS if tls else _NO_SERVER) from None
    try:
        writer.write(
            f"GET {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\nUser-Agent: Tritonic\r\n"
            "Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        return await _read(reader, max_bytes, take)
    except ssl.SSLError:
        raise Unusable(_NO_TLS) from None
    except OSError:
        raise Unusable(_CUT_OFF) from None
    finally:
        writer.transport.abort()  # whatever the server would still like to say


async def _read(reader: asyncio.StreamReader, max_bytes: int, take: Take) -> Answer:
    heads = _Heads(max_bytes)
    parser = heads.parser
    raw = wire = 0
    data = bytearray()
    while not heads.complete:
        piece = await reader.read(_PIECE)
        if not piece:
            heads.check_end()
            break
        raw += len(piece)
        try:
            parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise heads.refusal or Unusable(_CUT_OFF if heads.done else _NO_SERVER) from None
        if not heads.done:
            if raw > _LONGEST_HEAD:
                raise Unusable(_NO_SERVER)
        elif heads.status != 200:
            break
        part = heads.body()
        wire += len(part)
        for unpacked in heads.unpacked(part):
            data += unpacked
            if len(data) > max_bytes:
                raise too_large(max_bytes)
            take(len(unpacked))
            await asyncio.sleep(0)
        if wire > max_bytes:
            raise too_large(max_bytes)
        if heads.done and raw - wire > _LONGEST_HEAD + _MOST_WRAPPING + wire:
            raise Unusable(_CUT_OFF)
        await asyncio.sleep(0)  # a stream that has more does not wait
    heads.check_whole()
    return Answer(status=heads.status, location=heads.get("location"), declared=heads.declared(), data=bytes(data))


class _Heads:
    """What the parser tells of an answer, and of those that announce it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.parser = httptools.HttpResponseParser(self)
        self._announced = 0
        self._headers: dict[str, bytes] = {}
        self._body: list[bytes] = []
        self._packing: zlib._Decompress | None = None
        self.status = 0
        self.done = False
        """Whether the head of the answer itself has come."""
        self.complete = False
        self.refusal: Unusable | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.decode("latin-1").lower(), value)

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status < 200:
            self._announced += 1
            if self._announced > _MOST_ANNOUNCED or self.status == 101:
                self._refuse(Unusable(_NO_SERVER))
            self._headers.clear()
            return
        self.done = True
        if self.status != 200:
            return
        length = self.get("content-length") or ""
        if length.isdecimal() and (len(length) > 18 or int(length) > self._max_bytes):
            self._refuse(too_large(self._max_bytes))
        packing = (self.get("content-encoding") or "identity").strip().lower()
        if packing in _PACKED:
            self._packing = zlib.decompressobj(_PACKED[packing])
        elif packing != "identity":
            self._refuse(Unusable(f"{_ABOUT}it is packed by '{packing[:30]}', which was not asked for"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = self.done

    def body(self) -> bytes:
        """Return the part of the body that came last."""
        body, self._body = b"".join(self._body), []
        return body

    def unpacked(self, part: bytes) -> Iterator[bytes]:
        """Yield what a part of the body stands for, by pieces. Raises `Unusable`."""
        if self._packing is None:
            if part:
                yield part
            return
        try:
            while part and not self._packing.eof:
                yield self._packing.decompress(part, 4 * _PIECE)
                part = self._packing.unconsumed_tail
        except zlib.error:
            raise Unusable(_CUT_OFF) from None

    def check_end(self) -> None:
        """Raise `Unusable` where the connection ends before the answer does."""
        if not self.done:
            raise Unusable(_NO_SERVER)
        if "content-length" in self._headers or "transfer-encoding" in self._headers:
            raise Unusable(_CUT_OFF)

    def check_whole(self) -> None:
        """Raise `Unusable` where what was packed ends before its end."""
        if self._packing is not None and not self._packing.eof:
            raise Unusable(_CUT_OFF)

    def get(self, name: str) -> str | None:
        """The value of a header, of several with one name the first; as UTF-8, where it is that."""
        value = self._headers.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    def declared(self) -> str:
        return (self.get("content-type") or "").partition(";")[0].strip().lower()

    def _refuse(self, why: Unusable) -> None:
        self.refusal = why
        raise why  # no further piece of it is parsed
