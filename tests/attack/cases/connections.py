"""Attacks by connections: unread responses, silence, slowness, and endless bodies."""

import select
import socket
import time
from contextlib import ExitStack

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.raw_http import (
    CONNECTION_CLOSED,
    MAX_ACCEPTED_BYTES,
    closes_within,
    read_response,
    receive_for,
    request_head,
    send_until_refused,
)

UNREAD_BYTES = 2 * 2**20
"""Bytes of requests whose responses are not read."""
SHORT_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
"""The shortest request. A server that buffers several hundred thousand of them uses a gigabyte of memory."""
NUM_CONNECTIONS = 400
"""Connections of one address, to a gateway whose processes may open 256 files."""
CLOSE_WITHIN_SECONDS = 9.0
"""Seconds within which an idle connection must be closed: a little more than the longest timeout of these gateways."""
_REFUSED = (*REFUSAL_STATUSES, CONNECTION_CLOSED)


def _send_without_reading(connection: socket.socket, data: bytes, max_bytes: int, seconds: float) -> int:
    """Send `data` repeatedly without reading, until the server reads no more. Return the number of bytes sent."""
    sent, deadline = 0, time.monotonic() + seconds
    connection.setblocking(False)
    while sent < max_bytes and time.monotonic() < deadline:
        _, writable, _ = select.select([], [connection], [], 0.3)
        if not writable:
            break
        try:
            sent += connection.send(data)
        except BlockingIOError:
            continue
        except OSError:
            break
    return sent


def unread_responses(request: bytes, connections: int = 1, max_bytes: int = UNREAD_BYTES) -> Attack:
    """Send a request repeatedly on each connection, and read nothing."""

    def attack(target: Target) -> None:
        with ExitStack() as stack:
            open_connections = [stack.enter_context(target.connect()) for _ in range(connections)]
            requests = request * max(1, 16_000 // len(request))
            for connection in open_connections:
                target.sent_bytes += _send_without_reading(connection, requests, max_bytes // connections, 2.0)
            time.sleep(0.5)

    return attack


def idle_connections(opening: bytes, sources: int = 1, count: int = NUM_CONNECTIONS) -> Attack:
    """Open connections, send `opening` on each, and wait. All must be closed in time."""

    def attack(target: Target) -> None:
        with ExitStack() as stack:
            accepted = []
            for number in range(count):
                try:
                    connection = stack.enter_context(target.connect(f"127.0.0.{10 + number % sources}", timeout=1))
                    connection.sendall(opening)
                    target.sent_bytes += len(opening)
                except OSError:
                    continue  # the gateway may refuse connections
                accepted.append(connection)
            deadline = time.monotonic() + CLOSE_WITHIN_SECONDS
            still_open = [
                connection
                for connection in accepted
                if not closes_within(connection, max(0.001, deadline - time.monotonic()))
            ]
            assert not still_open, (
                f"{len(still_open)} of {count} connections were still open after {CLOSE_WITHIN_SECONDS:.0f} s"
            )

    return attack


def slow_sender(beginning: bytes, piece: bytes, count: int = 60) -> Attack:
    """Send `beginning` on each connection, and then `piece` every 0.2 s until the gateway closes the connection."""

    def attack(target: Target) -> None:
        with ExitStack() as stack:
            still_open = [stack.enter_context(target.connect()) for _ in range(count)]
            for connection in still_open:
                connection.sendall(beginning)
                connection.setblocking(False)
            deadline = time.monotonic() + CLOSE_WITHIN_SECONDS
            while still_open and time.monotonic() < deadline:
                time.sleep(0.2)
                still_open = [connection for connection in still_open if _send_more(target, connection, piece)]
            assert not still_open, (
                f"{len(still_open)} of {count} connections stayed open for {CLOSE_WITHIN_SECONDS:.0f} s"
            )

    return attack


def _send_more(target: Target, connection: socket.socket, piece: bytes) -> bool:
    """Send `piece` if possible. Return False if the connection is closed."""
    try:
        if select.select([connection], [], [], 0)[0] and not connection.recv(65536):
            return False
        target.sent_bytes += connection.send(piece)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def endless_body(path: str, key: bool, framing: str, method: str = "POST") -> Attack:
    """Send an endless body. The gateway must stop reading it after its response."""

    def attack(target: Target) -> None:
        headers = {**(target.auth_header() if key else {}), "Content-Type": "application/json"}
        chunked = framing == "chunked"
        headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(10 * 2**30)}
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n" if chunked else b" " * 0x10000
        with target.connect() as connection:
            connection.sendall(request_head(method, path, headers))
            sent = send_until_refused(connection, piece)
            target.sent_bytes += sent
            connection.settimeout(2)
            status, text = read_response(connection, method)
            target.record(status, text)
            assert sent < MAX_ACCEPTED_BYTES, f"the gateway accepted {sent / 2**20:.0f} MB of an endless body"
            assert closes_within(connection, 3), "the connection stays open although its body has no end"

    return attack


def expect_continue(target: Target) -> None:
    """Send `Expect: 100-continue` without a key. The refusal must come instead of `100 Continue`."""
    headers = {"Expect": "100-continue", "Content-Type": "application/json"}
    with target.connect() as connection:
        connection.sendall(request_head("POST", "/v1/chat/completions", headers, 10_000_000))
        response = receive_for(connection, 1.0)
    target.sent_bytes += 200
    assert b"100 Continue" not in response[:30], response[:100]
    assert response.startswith(b"HTTP/1.1 401"), response[:100]


_LIVE = request_head("GET", "/health/live", {})
_DOCUMENT = request_head("GET", "/openapi.json", {})
_NOTHING = request_head("GET", "/nothing/at/all", {})
_UNKNOWN = request_head("POST", "/v1/chat/completions", {}, 2) + b"{}"
_BEGINNING = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: "
_CHAT = b'{"model":"silent","stream":true,"messages":[{"role":"user","content":"Hello"}]}'


def slow_body(target: Target) -> None:
    """Send a body slowly, with a key."""
    beginning = request_head(
        "POST", "/v1/chat/completions", {**target.auth_header(), "Content-Type": "application/json"}, 1_000_000
    )
    slow_sender(beginning + b'{"x":"', b"aaaa")(target)


def open_streams(target: Target) -> None:
    """Hold as many streams open as the limit of connections. Others can still connect."""
    request = request_head(
        "POST", "/v1/chat/completions", {**target.auth_header(), "Content-Type": "application/json"}, len(_CHAT)
    )
    with ExitStack() as stack:
        for _ in range(NUM_CONNECTIONS // 2):
            try:
                connection = stack.enter_context(target.connect(timeout=1))
                connection.sendall(request + _CHAT)
                target.sent_bytes += len(request + _CHAT)
            except OSError:
                continue
        time.sleep(1.0)


def unread_chats(target: Target) -> None:
    """Send chats on one connection, with a key, and read no response."""
    body = _CHAT.replace(b"silent", b"hello")
    request = request_head(
        "POST", "/v1/chat/completions", {**target.auth_header(), "Content-Type": "application/json"}, len(body)
    )
    unread_responses(request + body)(target)


CASES = [
    AttackCase(
        "connections: GETs without end, no answer read",
        unread_responses(SHORT_REQUEST, max_bytes=6 * UNREAD_BYTES),
        _REFUSED,
        runs_on_two_workers=True,
    ),
    AttackCase("connections: the same of large answers", unread_responses(_DOCUMENT), _REFUSED),
    AttackCase("connections: the same of an unknown path", unread_responses(_NOTHING), _REFUSED),
    AttackCase("connections: the same of requests without a key", unread_responses(_UNKNOWN), _REFUSED),
    AttackCase("connections: the same of chats with a key", unread_chats, _REFUSED),
    AttackCase(
        "connections: the same on twenty connections",
        unread_responses(_LIVE, 20, 3 * UNREAD_BYTES),
        _REFUSED,
        runs_on_two_workers=True,
    ),
    AttackCase("connections: one byte in each segment", slow_sender(b"", b"G", 20), _REFUSED),
    AttackCase(
        "connections: silent ones up to the limit of open files",
        idle_connections(b""),
        setup="few files",
        runs_on_two_workers=True,
    ),
    AttackCase(
        "connections: half a head up to the limit of open files", idle_connections(_BEGINNING), setup="few files"
    ),
    AttackCase("connections: idle after an answer, up to the limit", idle_connections(_LIVE), setup="few files"),
    AttackCase(
        "connections: bodies that never come, up to the limit", idle_connections(_UNKNOWN[:-2]), setup="few files"
    ),
    AttackCase("connections: open streams up to the limit", open_streams, setup="few files"),
    AttackCase("connections: slow heads", slow_sender(_BEGINNING, b"a"), _REFUSED),
    AttackCase("connections: slow header lines", slow_sender(_BEGINNING, b"a\r\nX: "), _REFUSED),
    AttackCase("connections: slow bodies", slow_body, (*_REFUSED, 408)),
    AttackCase(
        "connections: an endless body without a key",
        endless_body("/v1/chat/completions", False, "chunked"),
        (401, CONNECTION_CLOSED),
    ),
    AttackCase(
        "connections: a body of gigabytes without a key",
        endless_body("/v1/embeddings", False, "length"),
        (401, CONNECTION_CLOSED),
    ),
    AttackCase(
        "connections: an endless body to an unknown path",
        endless_body("/nowhere", False, "chunked"),
        (401, 404, CONNECTION_CLOSED),
    ),
    AttackCase(
        "connections: an endless body of a GET",
        endless_body("/health/live", False, "chunked", "GET"),
        (200, 400, 413, CONNECTION_CLOSED),
    ),
    AttackCase(
        "connections: an endless body with a key",
        endless_body("/v1/chat/completions", True, "chunked"),
        (413, CONNECTION_CLOSED),
        runs_on_two_workers=True,
    ),
    AttackCase("connections: Expect: 100-continue without a key", expect_continue),
]
