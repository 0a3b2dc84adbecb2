"""Connections that take without giving: unread answers, silence, slowness, endless bodies."""

import select
import socket
import time
from contextlib import ExitStack

from tests.attack.kinds.kind import REFUSED, Attack, Kind, Target
from tests.attack.wire import ENDLESS, GONE, answer, ended, head, poured, received

UNREAD = 2 * 2**20
"""Bytes of requests whose answers nobody reads."""
SHORT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
"""Of the shortest, several hundred thousand are a gigabyte where all of them are kept."""
CROWD = 400
"""Connections of one address, at a gateway whose processes may open 256 files."""
SOON = 9.0
"""Seconds within which who does nothing is sent away: a part of a second more than the longest of the timeouts that
these gateways are set to."""
_REFUSED = (*REFUSED, GONE)


def _pushed(connection: socket.socket, data: bytes, most: int, seconds: float) -> int:
    """Send the same again and again without reading, until the other side takes no more. Returns how many bytes."""
    sent, deadline = 0, time.monotonic() + seconds
    connection.setblocking(False)
    while sent < most and time.monotonic() < deadline:
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


def unread(request: bytes, connections: int = 1, most: int = UNREAD) -> Attack:
    """Ask again and again on each of so many connections, and read nothing."""

    def attack(target: Target) -> None:
        with ExitStack() as stack:
            made = [stack.enter_context(target.connect()) for _ in range(connections)]
            pieces = request * max(1, 16_000 // len(request))
            for connection in made:
                target.sent += _pushed(connection, pieces, most // connections, 2.0)
            time.sleep(0.5)

    return attack


def crowd(said: bytes, sources: int = 1, count: int = CROWD) -> Attack:
    """Open connections, say so much on each, and wait: all must be closed in time, and others served meanwhile."""

    def attack(target: Target) -> None:
        with ExitStack() as stack:
            made = []
            for number in range(count):
                try:
                    connection = stack.enter_context(target.connect(f"127.0.0.{10 + number % sources}", timeout=1))
                    connection.sendall(said)
                    target.sent += len(said)
                except OSError:
                    continue  # refused: as good as closed
                made.append(connection)
            deadline = time.monotonic() + SOON
            left = [each for each in made if not ended(each, max(0.001, deadline - time.monotonic()))]
            assert not left, f"{len(left)} of {count} connections were still open after {SOON:.0f} s"

    return attack


def trickling(begun: bytes, piece: bytes, count: int = 60) -> Attack:
    """Begin a request on each of so many connections and go on by a piece every 0.2 s, until they are closed."""

    def attack(target: Target) -> None:
        with ExitStack() as stack:
            left = [stack.enter_context(target.connect()) for _ in range(count)]
            for connection in left:
                connection.sendall(begun)
                connection.setblocking(False)
            deadline = time.monotonic() + SOON
            while left and time.monotonic() < deadline:
                time.sleep(0.2)
                left = [connection for connection in left if _goes_on(target, connection, piece)]
            assert not left, f"{len(left)} of {count} connections went on for {SOON:.0f} s"

    return attack


def _goes_on(target: Target, connection: socket.socket, piece: bytes) -> bool:
    try:
        if select.select([connection], [], [], 0)[0] and not connection.recv(65536):
            return False
        target.sent += connection.send(piece)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def endless(path: str, key: bool, framing: str, method: str = "POST") -> Attack:
    """Send a body that does not end: the gateway may not go on taking it once it has answered."""

    def attack(target: Target) -> None:
        headers = {**(target.key() if key else {}), "Content-Type": "application/json"}
        chunked = framing == "chunked"
        headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(10 * 2**30)}
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n" if chunked else b" " * 0x10000
        with target.connect() as connection:
            connection.sendall(head(method, path, headers))
            sent = poured(connection, piece)
            target.sent += sent
            connection.settimeout(2)
            status, text = answer(connection, method)
            target.note(status, text)
            assert sent < ENDLESS, f"{sent / 2**20:.0f} MB were taken, and there was no end"
            assert ended(connection, 3), "the connection was kept although its body has no end"

    return attack


def no_continue(target: Target) -> None:
    """Ask whether a body may come, without a key: the refusal comes instead of `100 Continue`."""
    headers = {"Expect": "100-continue", "Content-Type": "application/json"}
    with target.connect() as connection:
        connection.sendall(head("POST", "/v1/chat/completions", headers, 10_000_000))
        said = received(connection, 1.0)
    target.sent += 200
    assert b"100 Continue" not in said[:30], said[:100]
    assert said.startswith(b"HTTP/1.1 401"), said[:100]


_LIVE = head("GET", "/health/live", {})
_DOCUMENT = head("GET", "/openapi.json", {})
_NOTHING = head("GET", "/nothing/at/all", {})
_UNKNOWN = head("POST", "/v1/chat/completions", {}, 2) + b"{}"
_BEGUN = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: "
_CHAT = b'{"model":"silent","stream":true,"messages":[{"role":"user","content":"Hello"}]}'


def slow_body(target: Target) -> None:
    """The same of a body, by somebody who has a key."""
    begun = head("POST", "/v1/chat/completions", {**target.key(), "Content-Type": "application/json"}, 1_000_000)
    trickling(begun + b'{"x":"', b"aaaa")(target)


def streams(target: Target) -> None:
    """Hold as many streams open as there may be connections: others still have their place."""
    request = head("POST", "/v1/chat/completions", {**target.key(), "Content-Type": "application/json"}, len(_CHAT))
    with ExitStack() as stack:
        for _ in range(CROWD // 2):
            try:
                connection = stack.enter_context(target.connect(timeout=1))
                connection.sendall(request + _CHAT)
                target.sent += len(request + _CHAT)
            except OSError:
                continue
        time.sleep(1.0)


def unread_chats(target: Target) -> None:
    """Ask for chats on one connection, with a key, and read none of their answers."""
    body = _CHAT.replace(b"silent", b"hello")
    request = head("POST", "/v1/chat/completions", {**target.key(), "Content-Type": "application/json"}, len(body))
    unread(request + body)(target)


KINDS = [
    Kind("connections: GETs without end, no answer read", unread(SHORT, most=6 * UNREAD), _REFUSED, costly=True),
    Kind("connections: the same of large answers", unread(_DOCUMENT), _REFUSED),
    Kind("connections: the same of what is not there", unread(_NOTHING), _REFUSED),
    Kind("connections: the same of requests without a key", unread(_UNKNOWN), _REFUSED),
    Kind("connections: the same of chats with a key", unread_chats, _REFUSED),
    Kind("connections: the same on twenty connections", unread(_LIVE, 20, 3 * UNREAD), _REFUSED, costly=True),
    Kind("connections: one byte in each segment", trickling(b"", b"G", 20), _REFUSED),
    Kind("connections: silent ones up to the limit of files", crowd(b""), setup="few files", costly=True),
    Kind("connections: half a head up to the limit of files", crowd(_BEGUN), setup="few files"),
    Kind("connections: idle after an answer, up to the limit", crowd(_LIVE), setup="few files"),
    Kind("connections: bodies that never come, up to the limit", crowd(_UNKNOWN[:-2]), setup="few files"),
    Kind("connections: open streams up to the limit", streams, setup="few files"),
    Kind("connections: slow heads", trickling(_BEGUN, b"a"), _REFUSED),
    Kind("connections: slow header lines", trickling(_BEGUN, b"a\r\nX: "), _REFUSED),
    Kind("connections: slow bodies", slow_body, (*_REFUSED, 408)),
    Kind("connections: an endless body without a key", endless("/v1/chat/completions", False, "chunked"), (401, GONE)),
    Kind("connections: a body of gigabytes without a key", endless("/v1/embeddings", False, "length"), (401, GONE)),
    Kind("connections: an endless body to nowhere", endless("/nowhere", False, "chunked"), (401, 404, GONE)),
    Kind("connections: an endless body of a GET", endless("/health/live", False, "chunked", "GET"),
         (200, 400, 413, GONE)),
    Kind("connections: an endless body with a key", endless("/v1/chat/completions", True, "chunked"), (413, GONE),
         costly=True),
    Kind("connections: a body that waits for leave, without a key", no_continue),
]  # fmt: skip
