"""Attacks by request smuggling, ambiguous requests, and excessive headers."""

import contextlib
import re
import time
from collections.abc import Callable

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.raw_http import (
    CONNECTION_CLOSED,
    MAX_ACCEPTED_BYTES,
    closes_within,
    connect,
    read_response,
    receive_for,
    request_head,
    send_until_refused,
)

_HIDDEN = b"GET /hidden-request HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_END = b"\r\n\r\n"
_BODY = b'{"model":"hello","messages":[{"role":"user","content":"Hello"}]}'


def _post(*lines: str) -> bytes:
    return "\r\n".join(("POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", *lines)).encode("latin-1") + _END


def _send_ambiguous(target: Target, name: str) -> str:
    """Send the two parts of an ambiguous request with a pause between them. Return the problem, "" if there is none.

    The gateway must send one response at most, and must not execute the hidden request.
    """
    first, second = _AMBIGUOUS_REQUESTS[name]
    bearer = "".join(f"{name}: {value}\r\n" for name, value in target.auth_header().items()).encode()
    with target.connect() as connection:
        connection.sendall(first.replace(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\n" + bearer, 1))
        if second:
            time.sleep(0.15)
            with contextlib.suppress(OSError):  # the gateway may have closed the connection
                connection.sendall(second)
        received = receive_for(connection, 1.0)
    target.sent_bytes += len(first + second)
    statuses = [int(status) for status in _STATUS.findall(received)]
    for status in statuses or [CONNECTION_CLOSED]:
        target.record(status, received.partition(_END)[2])
    if b"hidden-request" in received:
        return f"{name}: a request inside a body was executed: {received[-300:]!r}"
    return f"{name}: one request has the responses {statuses}" if len(statuses) > 1 else ""


def request_smuggling(target: Target) -> None:
    """Send requests that one parser reads as one request and another as two."""
    names = list(_AMBIGUOUS_REQUESTS)
    problems = [
        problem
        for problem in target.run_concurrently(len(names), lambda number: _send_ambiguous(target, names[number]))
        if problem
    ]
    assert not problems, "; ".join(problems)


_N = len(_HIDDEN)
_CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (_N, _HIDDEN)
_AMBIGUOUS_REQUESTS: dict[str, tuple[bytes, bytes]] = {
    "an upgrade to WebSocket, the body behind": (
        _post("Connection: Upgrade", "Upgrade: websocket", f"Content-Length: {_N}"), _HIDDEN),
    "an upgrade to HTTP/2, the body behind": (
        _post("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA", f"Content-Length: {_N}"),
        _HIDDEN),
    "an upgrade, a chunked body behind": (
        _post("Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked"), _CHUNKED),
    "an upgrade, the body in one piece": (
        _post("Connection: Upgrade", "Upgrade: foo", f"Content-Length: {_N}") + _HIDDEN, b""),
    "an upgrade of a GET with a body": (
        b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: %d" % _N
        + _END, _HIDDEN),
    "CONNECT": (b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d" % _N + _END, _HIDDEN),
    "the body of a GET": (
        b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d" % _N + _END, _HIDDEN),
    "a length and chunks": (
        _post(f"Content-Length: {_N + 5}", "Transfer-Encoding: chunked"), b"0\r\n\r\n" + _HIDDEN),
    "chunks and a length": (_post("Transfer-Encoding: chunked", "Content-Length: 5"), b"0\r\n\r\n" + _HIDDEN),
    "two lengths": (_post(f"Content-Length: {_N}", "Content-Length: 0"), _HIDDEN),
    "two lengths, the other way round": (_post("Content-Length: 0", f"Content-Length: {_N}"), _HIDDEN),
    "a list of lengths": (_post(f"Content-Length: 0, {_N}"), _HIDDEN),
    "a length with a sign": (_post(f"Content-Length: +{_N}"), _HIDDEN),
    "a length in hexadecimal": (_post(f"Content-Length: 0x{_N:x}"), _HIDDEN),
    "a length with a space in it": (_post(f"Content-Length: 0 {_N}"), _HIDDEN),
    "a length beyond 64 bits": (_post(f"Content-Length: {2**64}"), _HIDDEN),
    "a negative length": (_post("Content-Length: -1"), _HIDDEN),
    "a space before the colon": (_post(f"Content-Length : {_N}"), _HIDDEN),
    "a length in a folded line": (_post("X: a", f" Content-Length: {_N}"), _HIDDEN),
    "chunks by another name": (_post("Transfer-Encoding: xchunked", f"Content-Length: {_N}"), _HIDDEN),
    "chunks behind a tab": (_post("Transfer-Encoding:\tchunked\x0b", f"Content-Length: {_N}"), _HIDDEN),
    "chunks twice": (_post("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), b"0\r\n\r\n" + _HIDDEN),
    "chunks that are not last": (_post("Transfer-Encoding: chunked, gzip"), b"0\r\n\r\n" + _HIDDEN),
    "a chunk with a sign": (_post("Transfer-Encoding: chunked"), b"+%x\r\n%b\r\n0\r\n\r\n" % (_N, _HIDDEN)),
    "a chunk in 0x": (_post("Transfer-Encoding: chunked"), b"0x%x\r\n%b\r\n0\r\n\r\n" % (_N, _HIDDEN)),
    "a chunk beyond 64 bits": (_post("Transfer-Encoding: chunked"), b"10000000000000000\r\n" + _HIDDEN),
    "a chunk whose line ends early": (_post("Transfer-Encoding: chunked"), b"0\n\n" + _HIDDEN),
    "an empty name of a header": (_post(": x", f"Content-Length: {_N}"), _HIDDEN),
    "a header with a NUL": (_post("X: a\x00b", f"Content-Length: {_N}"), _HIDDEN),
    "another request behind `Connection: close`": (
        _post("Connection: close", "Content-Length: 2") + b"{}" + _HIDDEN, _HIDDEN),
    "a preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, b""),
}  # fmt: skip


def _request_with_headers(
    target: Target, lines: list[str], method: str = "POST", path: str = "/v1/chat/completions"
) -> int:
    """Send a request with these headers only, and return the status."""
    lines = [f"{method} {path} HTTP/1.1", *lines, "Content-Type: application/json", f"Content-Length: {len(_BODY)}"]
    request = "\r\n".join(lines).encode("latin-1") + _END + _BODY
    with target.connect() as connection:
        connection.sendall(request)
        status, text = read_response(connection, method)
    target.sent_bytes += len(request)
    if status >= 500:
        target.record(status, text)
    return status


def foreign_hosts(target: Target) -> None:
    """Send foreign `Host` headers to a gateway without keys. Only names of this machine may be accepted."""
    port = target.gateway.address[1]
    foreign = [
        *("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "10.1.2.3"),
        *("evil.example#127.0.0.1", "127.0.0.1@evil.example", "localhost, evil.example", "", "localhost:x", "[::2]"),
    ]
    for lines in (*([f"Host: {name}"] for name in foreign), [], ["Host: localhost", "Host: localhost"]):
        status = _request_with_headers(target, lines)
        assert status in (400, 403, 421), f"{lines} is answered {status}"
    for name in ("localhost", f"127.0.0.1:{port}", f"LOCALHOST:{port}", "[::1]"):
        assert _request_with_headers(target, [f"Host: {name}"]) == 200, name


def invalid_hosts(target: Target) -> None:
    """Send HTTP/1.1 requests with no `Host` header, two, or an invalid one. They must be refused despite a key."""
    bearer = [f"{name}: {value}" for name, value in target.auth_header().items()]
    for lines in ([], ["Host: a", "Host: a"], ["Host: a", "Host: b"], ["Host: a b"], ["Host: a/b"]):
        status = _request_with_headers(target, [*lines, *bearer])
        assert status in (400, 421), f"{lines} is answered {status}"


def foreign_origins(target: Target) -> None:
    """Send foreign `Origin` headers to a gateway without keys. Only the gateway's own origin may be accepted."""
    port = target.gateway.address[1]
    routes = [("POST", "/v1/chat/completions"), ("GET", "/tritonic/v1/images"), ("GET", "/v1/models")]
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", f"http://evil.example:{port}"):
        for method, path in routes:
            status = _request_with_headers(target, [f"Host: 127.0.0.1:{port}", f"Origin: {origin}"], method, path)
            assert status == 403, f"{method} {path} from {origin} is answered {status}"
    assert _request_with_headers(target, [f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}"]) == 200


def forwarded_headers(target: Target) -> None:
    """Send malformed headers of proxies. The gateway must not fail."""
    values = [
        "a:b",
        "",
        ",,,",
        "[",
        "[::1",
        "::::",
        "1.2.3.4, x",
        "1.2.3.4:5:6",
        "%",
        "9" * 5000,
        "::1%eth0",
        "é",
        "a:b:c",
    ]
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP"):
        for value in values:
            status = _request_with_headers(target, ["Host: 127.0.0.1", f"{name}: {value}"])
            assert status in (200, 400, 403), f"{name}: {value[:20]} is answered {status}"


def endless_head(begin: bytes, piece: Callable[[], bytes]) -> Attack:
    """Send endless headers. The request must be refused, or the connection closed."""

    def attack(target: Target) -> None:
        with connect(target.gateway.address, timeout=1) as connection:
            connection.sendall(begin)
            sent = send_until_refused(connection, piece())
            target.sent_bytes += sent
            assert sent < MAX_ACCEPTED_BYTES, f"the gateway accepted {sent / 2**20:.0f} MB of an endless head"
            assert closes_within(connection, 3), f"the connection is open after a head of {sent} bytes"

    return attack


_START = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CASES = [
    AttackCase(f"heads: {len(_AMBIGUOUS_REQUESTS)} requests that could be two", request_smuggling, (200,
    *REFUSAL_STATUSES, 501, 505, CONNECTION_CLOSED)),
    AttackCase("heads: foreign hosts without keys", foreign_hosts, setup="open"),
    AttackCase("heads: no host and two hosts", invalid_hosts),
    AttackCase("heads: foreign origins without keys", foreign_origins, setup="open"),
    AttackCase("heads: malformed headers of proxies", forwarded_headers, setup="open"),
    AttackCase("heads: an endless header", endless_head(_START + b"X: ", lambda: b"a" * 16_384)),
    AttackCase("heads: headers without end", endless_head(_START, lambda: b"X: a\r\n" * 4096),
    runs_on_two_workers=True),
    AttackCase("heads: an endless path", endless_head(b"GET /", lambda: b"a" * 16_384)),
    AttackCase("heads: an endless method", endless_head(b"", lambda: b"G" * 16_384)),
    AttackCase("heads: endless line ends before a request", endless_head(b"", lambda: b"\r\n" * 8192)),
    AttackCase("heads: trailers without end", endless_head(
        request_head("POST", "/v1/chat/completions", {"Transfer-Encoding": "chunked"}) + b"0\r\n", lambda: b"X: a\r\n"
        * 4096)),
    AttackCase("heads: a chunk's extension without end", endless_head(
        request_head("POST", "/v1/chat/completions", {"Transfer-Encoding": "chunked"}) + b"1;", lambda: b"a" * 16_384)),
]  # fmt: skip
