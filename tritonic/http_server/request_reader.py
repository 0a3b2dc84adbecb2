"""Cuts what comes on a connection into requests that are answered one after the other.

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

from tritonic.http_server import header_limit
from tritonic.http_server.connections import MAX_BUFFERED_BYTES, Connection, ConnectionTable, Peer
from tritonic.http_server.request_cycle import Http10RequestCycle, ReadFlowControl, RequestCycle

_READ_AHEAD_BYTES = header_limit.MAX_HEAD_BYTES
"""Bytes of further requests that are read while an answer is under way. Whoever reads sees that a client hangs up."""
_SLICE_BYTES = 64 * 1024
"""Bytes that the parser is given at a time."""
_MAX_SLICES = 64
"""Times that it is given any before others have their turn."""
_MAX_END_SEARCHES = 1024
"""Times that the end of a chunked body is looked for; then what follows it in the same piece is dropped."""
_ALWAYS_ALLOWED_BYTES = 4096
"""Bytes that each connection may hold, however much all of them do."""
_FRAMING_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_NEVER = float("inf")


class RequestReader(HttpToolsProtocol):
    """The way from bytes to requests."""

    cycle: "RequestCycle | None"  # type: ignore[assignment]
    flow: ReadFlowControl

    def __init__(self, *given: Any, connections: ConnectionTable, **named: Any) -> None:
        """Takes what uvicorn gives, and the table of connections."""
        super().__init__(*given, **named)
        self.peer: Peer
        self.has_request = False
        self.deadline = _NEVER
        self._connections = connections
        self._buffer = b""
        """What came and the parser has not seen, from `_at` on."""
        self._position = 0
        self._reported_bytes = 0
        """What of it the table of connections knows."""
        self._searched_bytes = 0
        """Bytes of an unfinished head in which there is no end."""
        self._blank_lines = 0
        """Empty lines before the next request."""
        self._framing_headers: dict[bytes, bytes] = {}
        self._in_body = self._headers_complete = self._should_keep_alive = False
        self._body_bytes_left: int | None = None
        """Bytes that are missing of the body; None: it is chunked."""
        self._chunk_tail = b""
        """The last three bytes of a chunked body that the parser has seen."""
        self._end_searches = 0
        """Places in a chunked body that looked like its end."""
        self._body_bytes = self._framing_bytes = 0
        """Bytes of a body, and of what surrounds its chunks."""
        self._draining = self._scheduled = False

    def _reject(self, refusal: bytes, why: str) -> None:
        """Answer what cannot be understood, and take no more."""
        raise NotImplementedError

    def _on_request_received(self, whole: bool) -> None:
        """Note that a request is there and not answered yet: the `whole` of it, or all but its body."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._buffer = self._buffer[self._position :] + data if self._position < len(self._buffer) else data
        self._position = 0
        if not self._scheduled:
            self._advance()
        elif len(self._buffer) > _READ_AHEAD_BYTES:
            self.flow.pause_reading()

    def _schedule_advance(self) -> None:
        if not self._scheduled and (self._position < len(self._buffer) or self.flow.read_paused):
            self._scheduled = True
            self.loop.call_soon(self._run_scheduled)

    def _run_scheduled(self) -> None:
        self._scheduled = False
        self._advance()

    def _advance(self) -> None:
        """Give the parser what it may have now: the rest of a body, or the next head once there is no answer left."""
        full, slices = False, _MAX_SLICES
        while self._position < len(self._buffer) and not self._draining and not self.transport.is_closing():
            cycle = self.cycle
            if self._in_body:
                assert cycle is not None
                if full := len(cycle.body) > HIGH_WATER_LIMIT:
                    break  # until the application has taken it
                if not slices:
                    self._schedule_advance()
                    break
                slices -= 1
                self._take_body()
            elif (cycle is not None and not cycle.response_complete) or self.flow.write_paused or not self._take_head():
                break
        self._apply_backpressure(full)

    def _apply_backpressure(self, full: bool) -> None:
        """Count what is held, and stop reading while it is too much."""
        left = len(self._buffer) - self._position
        if not left:
            self._buffer, self._position = b"", 0
        if left != self._reported_bytes:
            self._connections.buffered_bytes += left - self._reported_bytes
            self._reported_bytes = left
            is_over = self._connections.buffered_bytes > MAX_BUFFERED_BYTES and not self._in_body
            if left > _ALWAYS_ALLOWED_BYTES and is_over:
                self._connections.count_event("no_memory")
                self.transport.abort()
        if full or left > _READ_AHEAD_BYTES:
            self.flow.pause_reading()
        else:
            self.flow.resume_now()

    def _take_head(self) -> bool:
        """Begin with a request whose head is complete. Returns whether there was one."""
        held, at = self._buffer, self._position
        while held.startswith(b"\r\n", at):
            at += 2  # some clients send one too many (RFC 9112, section 2.2)
            self._blank_lines += 1
            if self._blank_lines > header_limit.MAX_BLANK_LINES:
                self._reject(header_limit.MALFORMED, "malformed")
                return False
        self._position = at
        if at == len(held) or (held[at] == 13 and at + 1 == len(held)):
            return False
        if not 65 <= held[at] <= 90:
            self._reject(header_limit.MALFORMED, "malformed")
            return False
        end = held.find(header_limit.HEAD_END, at + max(0, self._searched_bytes - 3))
        size = (len(held) if end < 0 else end + 4) - at
        if size > header_limit.MAX_HEAD_BYTES:
            self._reject(header_limit.HEAD_TOO_LARGE, "too_large")
            return False
        if end < 0:
            if not self._searched_bytes:
                self.deadline = self.loop.time() + self._connections.limits.head_timeout
            if header_limit.BARE_LF.search(held, at + max(0, self._searched_bytes - 1)):
                self._reject(header_limit.MALFORMED, "malformed")
            self._searched_bytes = size
            return False
        self._position, self._searched_bytes, self._blank_lines = end + 4, 0, 0
        refusal = self._parse(held if size == len(held) else held[at : end + 4])
        if refusal:
            self._reject(refusal, header_limit.LOG_REASONS.get(refusal, "malformed"))
        return not refusal

    def _parse(self, head: bytes) -> bytes | None:
        """Read a head and begin with its request. Returns the answer, where it is refused."""
        line = header_limit.REQUEST_LINE.match(head)
        if line is None:
            return header_limit.MALFORMED
        if len(line[1]) > header_limit.MAX_TARGET_BYTES:
            return header_limit.URI_TOO_LONG
        if head.count(b"\r\n") > header_limit.MAX_HEADER_FIELDS + 2:
            return header_limit.HEAD_TOO_LARGE
        if head.startswith(b"CONNECT "):
            return header_limit.CONNECT_REFUSED
        try:
            try:
                self.parser.feed_data(head)
            except httptools.HttpParserUpgrade:
                # Whoever offers another protocol is answered in this one (RFC 9110, section 7.8). The parser takes what
                # follows for the other protocol, so it is not told.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(header_limit.UPGRADE_HEADER.sub(b"\r\nx-upgrade:", head))
            url = httptools.parse_url(self.url)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return header_limit.MALFORMED
        coding = self._framing_headers.get(b"transfer-encoding")
        if coding is not None and (coding.strip().lower() != b"chunked" or line[2] == b"0"):
            return header_limit.UNSUPPORTED_CODING
        if url.host is not None and not header_limit.host_matches(url, self.headers):
            return header_limit.HOST_MISMATCH
        if not self._connections.start_request(cast(Connection, self)):
            return header_limit.ADDRESS_LIMIT_REACHED
        self._start_cycle(url, "1." + line[2].decode())
        return None

    def _start_cycle(self, url: "httptools.parser.url_parser.URL", version: str) -> None:
        """Let the application answer."""
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["http_version"] = version
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        kind = RequestCycle if version == "1.1" else Http10RequestCycle
        self.cycle = kind(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=version == "1.1"
            and self._framing_headers.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=self._should_keep_alive,
            on_response=self.on_response_complete,
        )
        self.deadline = _NEVER
        if self._in_body:
            length = self._framing_headers.get(b"content-length")
            self._body_bytes_left = None if length is None else int(length)
            self._chunk_tail, self._body_bytes, self._framing_bytes, self._end_searches = b"", 0, 0, 0
            self._on_request_received(whole=False)
        else:
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._on_request_received(whole=True)
        self._start_asgi_task(self.cycle, self.app)

    def _take_body(self) -> None:
        """Give the parser a part of a body, and nothing beyond its end."""
        held, at, before = self._buffer, self._position, self._body_bytes
        size = min(len(held) - at, _SLICE_BYTES)
        if self._body_bytes_left is not None:
            size = min(size, self._body_bytes_left)
            self._body_bytes_left -= size
        elif self._end_searches < _MAX_END_SEARCHES:
            self._end_searches += 1
            size = header_limit.bytes_to_end(self._chunk_tail, held, at, size)
            self._chunk_tail = (self._chunk_tail + held[max(at, at + size - 3) : at + size])[-3:]
        self._position += size
        try:
            self.parser.feed_data(held if size == len(held) else memoryview(held)[at : at + size])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._in_body or self.cycle is None:
                self._reject(header_limit.MALFORMED, "malformed")
            else:
                # The end was not looked for any more, and something follows it: nobody can say from where on.
                self.cycle.keep_alive = False
                self._position = len(held)
            return
        if not self._in_body:
            self._end_searches = 0
        if self._body_bytes_left is None:
            self._framing_bytes += size - (self._body_bytes - before)
            if self._framing_bytes > header_limit.MAX_HEAD_BYTES + header_limit.MAX_FRAMING_PER_BYTE * self._body_bytes:
                self._reject(header_limit.HEAD_TOO_LARGE, "too_large")

    # The parser's calls

    def on_message_begin(self) -> None:
        """Begin with a head."""
        if self._body_bytes_left is None and self._end_searches >= _MAX_END_SEARCHES:
            raise ValueError("another request behind a body whose end was not looked for")
        super().on_message_begin()
        self._headers_complete, self._in_body, self._framing_headers = False, True, {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. One that comes after the body is none: nobody has looked at it (RFC 9110, section 6.5.1)."""
        if self._headers_complete:
            return
        name = name.lower()
        if name in _FRAMING_HEADERS:
            self._framing_headers[name] = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note what the parser forgets as soon as the request ends."""
        self._headers_complete = True
        self._should_keep_alive = self.parser.should_keep_alive()
        self.scope["method"] = self.parser.get_method().decode("ascii")

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body_bytes += len(body)
        cycle = self.cycle
        assert cycle is not None
        if not cycle.response_complete:
            cycle.body += body
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._in_body = False
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            cycle.more_body = False
            cycle.message_event.set()
            if not cycle.response_complete:
                self._on_request_received(whole=True)
