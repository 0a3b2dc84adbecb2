"""Limits of a request head, and the responses to heads that break them.

A head is the request line and the header fields, up to the empty line (RFC 9112). httptools has no limits of its own,
and it accepts what this gateway must refuse: other HTTP versions, transfer codings that the gateway does not decode,
and upgrades to other protocols.
"""

import re

import httptools

from gateway.dialects import DIALECTS
from gateway.errors import GatewayError, InvalidRequest, Overloaded, RequestTimeout, RequestTooLarge

MAX_HEAD_BYTES = 64 * 1024
"""Longest head. Trailers and chunk framing get as much, plus MAX_FRAMING_PER_BYTE for each byte of the body."""
MAX_TARGET_BYTES = 8 * 1024
"""Longest request target: path and query together."""
MAX_BLANK_LINES = 16
"""Most empty lines before a request. Some old clients send one (RFC 9112, section 2.2)."""
MAX_HEADER_FIELDS = 128
"""Most header fields in one head. Each lookup of a header reads all of them."""
MAX_FRAMING_PER_BYTE = 16
"""Framing bytes allowed for each byte of a chunked body. Chunks of one byte take five: a client that sends those is
slow, not hostile."""

HEAD_END = b"\r\n\r\n"
"""The bytes that end a head, and a chunked body."""
REQUEST_LINE = re.compile(rb"[A-Z][A-Z-]* ([!-~]+) HTTP/1\.([01])\r\n")
"""The request line; the groups are the target and the minor HTTP version."""
BARE_LF = re.compile(rb"(?<!\r)\n")
UPGRADE_HEADER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def host_matches(url: "httptools.parser.url_parser.URL", headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether the header `Host` names the same authority as the request line (RFC 9112, section 3.2.2)."""
    host = b"[%b]" % url.host if b":" in url.host else url.host
    authority = host if url.port is None else b"%b:%d" % (host, url.port)
    return [value.lower() for name, value in headers if name == b"host"] == [authority.lower()]


def bytes_to_end(tail: bytes, data: bytes, at: int, size: int) -> int:
    """Return how many of the `size` bytes from `data[at]` the parser may get before a chunked body might end.

    The result includes the next HEAD_END. `tail` is the last three bytes before `data[at]`: HEAD_END may begin there.
    """
    over = (tail + data[at : at + 3]).find(HEAD_END)
    if over >= 0:
        return min(size, over + 4 - len(tail))
    end = data.find(HEAD_END, at, at + size)
    return size if end < 0 else end + 4 - at


def error_response(status: bytes, error: GatewayError, *fields: bytes) -> bytes:
    """Return a whole HTTP response that closes the connection, in the error format of the first dialect."""
    body = bytes(DIALECTS[0].errors.render(error).body)
    head = (b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body))
    return b"\r\n".join((*head, *fields, b"connection: close", b"", body))


def with_request_id(refusal: bytes, request_id: str) -> bytes:
    """Return one of the responses below with the header `x-request-id`."""
    return refusal.replace(b"\r\n", b"\r\nx-request-id: %b\r\n" % request_id.encode("ascii"), 1)


def _bad_request(sentence: str) -> bytes:
    return error_response(b"400 Bad Request", InvalidRequest(sentence))


MALFORMED = _bad_request(
    "This is no valid request of HTTP/1.1, see RFC 9112: a line of the head or of a chunk is wrong."
)
UNSUPPORTED_CODING = _bad_request("The only supported transfer coding is 'chunked', in HTTP/1.1.")
HOST_MISMATCH = _bad_request("The host in the request line and the header 'Host' differ.")
CONNECT_REFUSED = _bad_request("This service is not a proxy: the method CONNECT is not supported.")
URI_TOO_LONG = error_response(
    b"414 URI Too Long", RequestTooLarge(f"The path and the query are longer than {MAX_TARGET_BYTES} bytes.")
)
HEAD_TOO_LARGE = error_response(
    b"431 Request Header Fields Too Large",
    RequestTooLarge(
        f"The request line and the headers are longer than {MAX_HEAD_BYTES} bytes, or more than {MAX_HEADER_FIELDS} "
        "fields."
    ),
)
HEAD_TIMEOUT = error_response(
    b"408 Request Timeout", RequestTimeout("The request line and the headers did not arrive in time.")
)
ADDRESS_LIMIT_REACHED = error_response(
    b"503 Service Unavailable",
    Overloaded("This address has reached its limit of open requests; the connections that are left are for others."),
    b"retry-after: 1",
)
CONNECTION_LIMIT_REACHED = error_response(
    b"503 Service Unavailable", Overloaded("The gateway has no connection left; try again."), b"retry-after: 1"
)
LOG_REASONS = {HEAD_TOO_LARGE: "too_large", URI_TOO_LONG: "too_large", ADDRESS_LIMIT_REACHED: "greedy"}
"""The reason that the log gives for these responses. For all others it is `malformed`."""
