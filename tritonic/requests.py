"""What comes on a connection, cut into requests that are answered one after the other.

uvicorn hands whatever came to the parser: a piece of 256 KB may hold thousands of requests, each of which it begins to
answer or queues. Here a piece is cut where a request may end. What comes after the request that is being answered is
held, up to a limit at which reading stops; the next one is begun when the answer is sent.
"""

import asyncio
import urllib.parse
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tritonic import heads
from tritonic.connections import HELD_BYTES, Connection, Connections, Peer
from tritonic.exchange import Exchange, Flow, OldExchange

_AHEAD = heads.HEAD_BYTES
"""Bytes of further requests that are read while an answer is under way. Whoever reads sees that a client hangs up."""
_SLICE = 64 * 1024
"""Bytes that the parser is given at a time."""
_SLICES = 64
"""Times that it is given any before others have their turn."""
_LOOKS = 1024
"""Times that the end of a chunked body is looked for. After that the body is read as it comes, and what follows it in
the same piece is dropped and the connection closed, as if the client had not sent it yet."""
_NEGLIGIBLE = 4096
"""Bytes that each connection may hold, however much all of them do."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_NEVER = float("inf")


class RequestReader(HttpToolsProtocol):
    """The way from bytes to requests."""

    cycle: "Exchange | None"  # type: ignore[assignment]
    flow: Flow

    def __init__(self, *given: Any, connections: Connections, **named: Any) -> None:
        """Takes what uvicorn gives, and the table of connections."""
        super().__init__(*given, **named)
        self.peer: Peer
        self.begun = False
        self.due = _NEVER
        self._connections = connections
        self._held = b""
        """What came and the parser has not seen, from `_at` on."""
        self._at = 0
        self._counted = 0
        """What of it the table of connections knows."""
        self._sought = 0
        """Bytes of an unfinished head in which there is no end."""
        self._blank = 0
        """Empty lines before the next request."""
        self._framing: dict[bytes, bytes] = {}
        self._within_body = self._headed = self._keeps = False
        self._left: int | None = None
        """Bytes that are missing of the body; None: it is chunked."""
        self._tail = b""
        """The last three bytes of a chunked body that the parser has seen."""
        self._looked = 0
        """Places in a chunked body that looked like its end."""
        self._body = self._frames = 0
        """Bytes of a body, and of what surrounds its chunks."""
        self._draining = self._scheduled = False

    def _refuse(self, refusal: bytes, why: str) -> None:
        """Answer what cannot be understood, and take no more."""
        raise NotImplementedError

    def _arrived(self, whole: bool) -> None:
        """Note that a request is there and not answered yet: the `whole` of it, or all but its body."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._held = self._held[self._at :] + data if self._at < len(self._held) else data
        self._at = 0
        if not self._scheduled:
            self._advance()
        elif len(self._held) > _AHEAD:
            self.flow.pause_reading()

    def _go_on(self) -> None:
        if not self._scheduled and (self._at < len(self._held) or self.flow.read_paused):
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._advance()

    def _advance(self) -> None:
        """Give the parser what it may have now: the rest of a body, or the next head once there is no answer left."""
        full, slices = False, _SLICES
        while self._at < len(self._held) and not self._draining and not self.transport.is_closing():
            cycle = self.cycle
            if self._within_body:
                assert cycle is not None
                if full := len(cycle.body) > HIGH_WATER_LIMIT:
                    break  # until the application has taken it
                if not slices:
                    self._go_on()
                    break
                slices -= 1
                self._take_body()
            elif (cycle is not None and not cycle.response_complete) or self.flow.write_paused or not self._take_head():
                break
        self._settle(full)

    def _settle(self, full: bool) -> None:
        """Count what is held, and stop reading while it is too much."""
        left = len(self._held) - self._at
        if not left:
            self._held, self._at = b"", 0
        if left != self._counted:
            self._connections.held += left - self._counted
            self._counted = left
            if left > _NEGLIGIBLE and self._connections.held > HELD_BYTES and not self._within_body:
                self._connections.note("no_memory")
                self.transport.abort()
        if full or left > _AHEAD:
            self.flow.pause_reading()
        else:
            self.flow.read_on()

    def _take_head(self) -> bool:
        """Begin with a request whose head is complete. Returns whether there was one."""
        held, at = self._held, self._at
        while held.startswith(b"\r\n", at):
            at += 2  # some clients send one too many (RFC 9112, section 2.2)
            self._blank += 1
            if self._blank > heads.BLANK_LINES:
                self._refuse(heads.MALFORMED, "malformed")
                return False
        self._at = at
        if at == len(held) or (held[at] == 13 and at + 1 == len(held)):
            return False
        if not 65 <= held[at] <= 90:
            self._refuse(heads.MALFORMED, "malformed")
            return False
        end = held.find(heads.END, at + max(0, self._sought - 3))
        size = (len(held) if end < 0 else end + 4) - at
        if size > heads.HEAD_BYTES:
            self._refuse(heads.TOO_LARGE, "too_large")
            return False
        if end < 0:
            if not self._sought:
                self.due = self.loop.time() + self._connections.limits.head
            if heads.BARE_LF.search(held, at + max(0, self._sought - 1)):
                self._refuse(heads.MALFORMED, "malformed")
            self._sought = size
            return False
        self._at, self._sought, self._blank = end + 4, 0, 0
        refusal = self._parse(held if size == len(held) else held[at : end + 4])
        if refusal:
            self._refuse(refusal, heads.WHY.get(refusal, "malformed"))
        return not refusal

    def _parse(self, head: bytes) -> bytes | None:
        """Read a head and begin with its request. Returns the answer, where it is refused."""
        line = heads.LINE.match(head)
        if line is None:
            return heads.MALFORMED
        if len(line[1]) > heads.TARGET_BYTES:
            return heads.TARGET_TOO_LONG
        if head.count(b"\r\n") > heads.HEAD_FIELDS + 2:
            return heads.TOO_LARGE
        if head.startswith(b"CONNECT "):
            return heads.TUNNEL
        try:
            try:
                self.parser.feed_data(head)
            except httptools.HttpParserUpgrade:
                # Whoever offers another protocol is answered in this one (RFC 9110, section 7.8). The parser takes what
                # follows for the other protocol, so it is not told.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(heads.UPGRADE.sub(b"\r\nx-upgrade:", head))
            url = httptools.parse_url(self.url)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return heads.MALFORMED
        coding = self._framing.get(b"transfer-encoding")
        if coding is not None and (coding.strip().lower() != b"chunked" or line[2] == b"0"):
            return heads.CODING
        if url.host is not None and not heads.names(url, self.headers):
            return heads.TARGET
        if not self._connections.begins(cast(Connection, self)):
            return heads.GREEDY
        self._begin(url, "1." + line[2].decode())
        return None

    def _begin(self, url: "httptools.parser.url_parser.URL", version: str) -> None:
        """Let the application answer."""
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["http_version"] = version
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        kind = Exchange if version == "1.1" else OldExchange
        self.cycle = kind(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=version == "1.1" and self._framing.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=self._keeps,
            on_response=self.on_response_complete,
        )
        self.due = _NEVER
        if self._within_body:
            length = self._framing.get(b"content-length")
            self._left = None if length is None else int(length)
            self._tail, self._body, self._frames, self._looked = b"", 0, 0, 0
            self._arrived(whole=False)
        else:
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._arrived(whole=True)
        self._start_asgi_task(self.cycle, self.app)

    def _take_body(self) -> None:
        """Give the parser a part of a body, and nothing beyond its end."""
        held, at, before = self._held, self._at, self._body
        size = min(len(held) - at, _SLICE)
        if self._left is not None:
            size = min(size, self._left)
            self._left -= size
        elif self._looked < _LOOKS:
            self._looked += 1
            size = heads.to_end(self._tail, held, at, size)
            self._tail = (self._tail + held[max(at, at + size - 3) : at + size])[-3:]
        self._at += size
        try:
            self.parser.feed_data(held if size == len(held) else memoryview(held)[at : at + size])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._within_body or self.cycle is None:
                self._refuse(heads.MALFORMED, "malformed")
            else:
                # The end was not looked for any more, and something follows it: nobody can say from where on.
                self.cycle.keep_alive = False
                self._at = len(held)
            return
        if not self._within_body:
            self._looked = 0
        if self._left is None:
            self._frames += size - (self._body - before)
            if self._frames > heads.HEAD_BYTES + heads.FRAME_BYTES * self._body:
                self._refuse(heads.TOO_LARGE, "too_large")

    # The parser's calls

    def on_message_begin(self) -> None:
        """Begin with a head."""
        if self._left is None and self._looked >= _LOOKS:
            raise ValueError("another request behind a body whose end was not looked for")
        super().on_message_begin()
        self._headed, self._within_body, self._framing = False, True, {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. One that comes after the body is none: nobody has looked at it (RFC 9110, section 6.5.1)."""
        if self._headed:
            return
        name = name.lower()
        if name in _FRAMING:
            self._framing[name] = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note what the parser forgets as soon as the request ends."""
        self._headed = True
        self._keeps = self.parser.should_keep_alive()
        self.scope["method"] = self.parser.get_method().decode("ascii")

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body += len(body)
        cycle = self.cycle
        assert cycle is not None
        if not cycle.response_complete:
            cycle.body += body
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._within_body = False
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            cycle.more_body = False
            cycle.message_event.set()
            if not cycle.response_complete:
                self._arrived(whole=True)
