"""A limit on what surrounds bodies: request lines, headers, trailers and the frames of chunks.

httptools has none of its own: one connection could fill the memory of the gateway before any key was looked at.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LIMIT = 64 * 1024
"""Bytes, as of uvicorn's other parser. What comes with the beginning of a request in one piece is not counted, so up to
a piece more is let through: 256 KiB."""
_FRAMES = 16
"""Chunks of one byte take five more each; who sends such is slow, and means no harm."""

_REFUSAL = b"The request line and the headers are longer than this service takes."
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_REFUSAL), _REFUSAL)
)


class LimitedHeads(HttpToolsProtocol):
    """Ends a connection when too much comes that belongs to no body (RFC 6585, section 5)."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._begun = False
        self._body = self._around = 0

    def on_message_begin(self) -> None:
        """Count from here on."""
        self._begun = True
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body += len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it was too much."""
        self._begun, before = False, self._body
        super().data_received(data)
        if self._begun:
            self._body = self._around = 0
            return
        self._around += len(data) - (self._body - before)
        if self._around > LIMIT + _FRAMES * self._body and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_ANSWER)
            self.transport.close()
