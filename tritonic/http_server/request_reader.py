"""Splits the bytes of a connection into requests, which are answered one after the other.

uvicorn hands each received piece to the parser whole. A piece of 256 KB may hold thousands of pipelined requests, and
uvicorn starts or queues all of them. This reader cuts a piece where a request may end. It buffers what follows the
request in progress, stops reading at a limit (backpressure), and starts the next request when the response is sent.
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
"""Bytes of further requests that are read while a request is in progress. Only reading shows that a client hangs up."""
_SLICE_BYTES = 64 * 1024
"""Most bytes of a body that the parser gets at a time."""
_MAX_SLICES = 64
"""Slices that the parser gets before other tasks of the event loop run."""
_MAX_END_SEARCHES = 1024
"""Searches for the end of one chunked body. After these, bytes that follow the body in the same piece are dropped."""
_ALWAYS_ALLOWED_BYTES = 4096
"""Bytes that each connection may buffer, even when all connections together are over their limit."""
_FRAMING_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_NEVER = float("inf")


class RequestReader(HttpToolsProtocol):
    """Reads requests from a connection and starts the application. `BoundedProtocol` adds timeouts and closing."""

    cycle: "RequestCycle | None"  # type: ignore[assignment]
    flow: ReadFlowControl

    def __init__(self, *args: Any, connections: ConnectionTable, **kwargs: Any) -> None:
        """Take uvicorn's arguments and the table of connections."""
        super().__init__(*args, **kwargs)
        self.peer: Peer
        self.has_request = False
        self.deadline = _NEVER
        self._connections = connections
        self._buffer = b""
        """Received bytes. Those from `_position` on have not been parsed."""
        self._position = 0
        self._reported_bytes = 0
        """Number of these bytes that the table of connections counts."""
        self._searched_bytes = 0
        """Bytes of an unfinished head that were searched for its end."""
        self._blank_lines = 0
        """Empty lines before the next request."""
        self._framing_headers: dict[bytes, bytes] = {}
        self._in_body = self._headers_complete = self._should_keep_alive = False
        self._body_bytes_left: int | None = None
        """Bytes of the body that have not arrived; None for a chunked body."""
        self._chunk_tail = b""
        """The last three bytes of a chunked body that were parsed."""
        self._end_searches = 0
        """Searches for the end of this chunked body so far."""
        self._body_bytes = self._framing_bytes = 0
        """Bytes of the body, and bytes of its chunk framing and trailers."""
        self._draining = self._scheduled = False

    def _reject(self, refusal: bytes, why: str) -> None:
        """Respond with `refusal` and read no further request. `why` is the log's word for it."""
        raise NotImplementedError

    def _on_request_received(self, complete: bool) -> None:
        """Handle a request that is not answered yet: it is `complete`, or all of it but its body has arrived."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Buffer `data`, and parse it unless parsing is scheduled already."""
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
        """Parse what may be parsed now: the rest of a body, or the next head once no response is in progress."""
        full, slices = False, _MAX_SLICES
        while self._position < len(self._buffer) and not self._draining and not self.transport.is_closing():
            cycle = self.cycle
            if self._in_body:
                assert cycle is not None
                if full := len(cycle.body) > HIGH_WATER_LIMIT:
                    break  # until the application has read it
                if not slices:
                    self._schedule_advance()
                    break
                slices -= 1
                self._take_body()
            elif (cycle is not None and not cycle.response_complete) or self.flow.write_paused or not self._take_head():
                break
        self._apply_backpressure(full)

    def _apply_backpressure(self, full: bool) -> None:
        """Count the buffered bytes, and pause reading while they are too many, or while the application is `full`."""
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
        """Start the next request if its head is complete. Return whether one was started."""
        data, at = self._buffer, self._position
        while data.startswith(b"\r\n", at):
            at += 2  # some clients send one too many (RFC 9112, section 2.2)
            self._blank_lines += 1
            if self._blank_lines > header_limit.MAX_BLANK_LINES:
                self._reject(header_limit.MALFORMED, "malformed")
                return False
        self._position = at
        if at == len(data) or (data[at] == 13 and at + 1 == len(data)):
            return False
        if not 65 <= data[at] <= 90:
            self._reject(header_limit.MALFORMED, "malformed")
            return False
        end = data.find(header_limit.HEAD_END, at + max(0, self._searched_bytes - 3))
        size = (len(data) if end < 0 else end + 4) - at
        if size > header_limit.MAX_HEAD_BYTES:
            self._reject(header_limit.HEAD_TOO_LARGE, "too_large")
            return False
        if end < 0:
            if not self._searched_bytes:
                self.deadline = self.loop.time() + self._connections.limits.head_timeout
            if header_limit.BARE_LF.search(data, at + max(0, self._searched_bytes - 1)):
                self._reject(header_limit.MALFORMED, "malformed")
            self._searched_bytes = size
            return False
        self._position, self._searched_bytes, self._blank_lines = end + 4, 0, 0
        refusal = self._parse(data if size == len(data) else data[at : end + 4])
        if refusal:
            self._reject(refusal, header_limit.LOG_REASONS.get(refusal, "malformed"))
        return not refusal

    def _parse(self, head: bytes) -> bytes | None:
        """Parse a head and start its request. Return the response when the request is refused, else None."""
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
                # A client that offers another protocol gets HTTP/1.1 (RFC 9110, section 7.8). The parser would take all
                # that follows for the other protocol, so the header is hidden from it.
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
        """Start the application for the parsed head."""
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["http_version"] = version
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        cycle_class = RequestCycle if version == "1.1" else Http10RequestCycle
        self.cycle = cycle_class(
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
            self._on_request_received(complete=False)
        else:
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._on_request_received(complete=True)
        self._start_asgi_task(self.cycle, self.app)

    def _take_body(self) -> None:
        """Parse a slice of the body, and nothing beyond its end."""
        data, at, before = self._buffer, self._position, self._body_bytes
        size = min(len(data) - at, _SLICE_BYTES)
        if self._body_bytes_left is not None:
            size = min(size, self._body_bytes_left)
            self._body_bytes_left -= size
        elif self._end_searches < _MAX_END_SEARCHES:
            self._end_searches += 1
            size = header_limit.bytes_to_end(self._chunk_tail, data, at, size)
            self._chunk_tail = (self._chunk_tail + data[max(at, at + size - 3) : at + size])[-3:]
        self._position += size
        try:
            self.parser.feed_data(data if size == len(data) else memoryview(data)[at : at + size])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._in_body or self.cycle is None:
                self._reject(header_limit.MALFORMED, "malformed")
            else:
                # The search for the end was given up, and more bytes follow. Where they start is not known.
                self.cycle.keep_alive = False
                self._position = len(data)
            return
        if not self._in_body:
            self._end_searches = 0
        if self._body_bytes_left is None:
            self._framing_bytes += size - (self._body_bytes - before)
            if self._framing_bytes > header_limit.MAX_HEAD_BYTES + header_limit.MAX_FRAMING_PER_BYTE * self._body_bytes:
                self._reject(header_limit.HEAD_TOO_LARGE, "too_large")

    # The parser's calls

    def on_message_begin(self) -> None:
        """Reset the state for a new head. Raises ValueError behind a body whose end was not looked for."""
        if self._body_bytes_left is None and self._end_searches >= _MAX_END_SEARCHES:
            raise ValueError("another request behind a body whose end was not looked for")
        super().on_message_begin()
        self._headers_complete, self._in_body, self._framing_headers = False, True, {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are dropped: nothing has checked them (RFC 9110, section 6.5.1)."""
        if self._headers_complete:
            return
        name = name.lower()
        if name in _FRAMING_HEADERS:
            self._framing_headers[name] = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Keep the method and keep-alive: the parser forgets both at the end of the request."""
        self._headers_complete = True
        self._should_keep_alive = self.parser.should_keep_alive()
        self.scope["method"] = self.parser.get_method().decode("ascii")

    def on_body(self, body: bytes) -> None:
        """Hand a part of the body to the application."""
        self._body_bytes += len(body)
        cycle = self.cycle
        assert cycle is not None
        if not cycle.response_complete:
            cycle.body += body
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Mark the request as complete."""
        self._in_body = False
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            cycle.more_body = False
            cycle.message_event.set()
            if not cycle.response_complete:
                self._on_request_received(complete=True)
