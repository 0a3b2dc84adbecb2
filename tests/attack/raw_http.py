"""HTTP/1.1 on bare sockets: well-behaved clients would not send what attackers do."""

import http.client
import json
import select
import socket
import time
from typing import Any

Address = tuple[str, int]
CONNECTION_CLOSED = 0
"""Stands for the status of an answer that did not come: the connection was closed."""
TIMED_OUT = -1
"""The same: neither an answer nor an end of the connection came in time."""
MAX_ACCEPTED_BYTES = 128 * 2**20
"""Bytes that nobody takes of one request."""
_PIECE = 64 * 1024


def connect(address: Address, source: str = "127.0.0.1", timeout: float = 10.0) -> socket.socket:
    """A connection from an address of this machine: all of 127.0.0.0/8 are its own."""
    made = socket.create_connection(address, timeout=timeout, source_address=(source, 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def request_head(
    method: str, path: str, headers: dict[str, str], length: int | None = None, host: str = "127.0.0.1"
) -> bytes:
    """A request up to its body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def send(connection: socket.socket, data: bytes) -> int:
    """Send, until an answer comes or the other side goes. Returns how many bytes went."""
    view, sent = memoryview(data), 0
    try:
        while sent < len(data):
            readable, writable, _ = select.select([connection], [connection], [], connection.gettimeout())
            if readable or not writable:
                break
            sent += connection.send(view[sent : sent + _PIECE])
    except OSError:
        pass
    return sent


def send_until_refused(connection: socket.socket, piece: bytes) -> int:
    """Send the same until the other side takes no more, closes, or has taken `ENDLESS` bytes. Returns how many went.

    A server may go on reading for a moment after it has refused, or its refusal is lost with the connection.
    """
    sent, deadline = 0, time.monotonic() + 6
    connection.settimeout(1)
    try:
        while sent < MAX_ACCEPTED_BYTES and time.monotonic() < deadline:
            sent += connection.send(piece)
    except OSError:
        pass
    return sent


def read_response(connection: socket.socket, method: str = "POST") -> tuple[int, bytes]:
    """The status and the body of an answer; `GONE` or `HANGS` where there is none."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return response.status, response.read()
    except TimeoutError:
        return TIMED_OUT, b""
    except (OSError, http.client.HTTPException, ValueError):
        return CONNECTION_CLOSED, b""
    finally:
        response.close()


def receive_for(connection: socket.socket, seconds: float) -> bytes:
    """All that comes within so many seconds, or until the other side closes."""
    got, deadline = b"", time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not (piece := connection.recv(_PIECE)):
                break
            got += piece
    except OSError:
        pass
    return got


def closes_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side closes within so many seconds, whatever it says before."""
    deadline = time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(_PIECE):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def get_text(address: Address, path: str, headers: dict[str, str]) -> str:
    """What is at a path. Raises `AssertionError` where it is refused."""
    with connect(address) as connection:
        connection.sendall(request_head("GET", path, {**headers, "Connection": "close"}))
        status, body = read_response(connection, "GET")
    assert status == 200, f"{path}: {status} {body[:200]!r}"
    return body.decode()


def json_bytes(body: Any) -> bytes:
    """JSON without spaces."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def multipart_body(
    parts: list[tuple[str, str | None, bytes]], boundary: str = "attack-7e57", head_of_part: str = ""
) -> bytes:
    """A form of `(name, file name, data)` (RFC 7578)."""
    written = []
    for name, file, data in parts:
        what = f'name="{name}"' + (f'; filename="{file}"' if file is not None else "")
        written += [
            f"--{boundary}\r\nContent-Disposition: form-data; {what}\r\n{head_of_part}\r\n".encode(),
            data,
            b"\r\n",
        ]
    return b"".join((*written, f"--{boundary}--\r\n".encode()))
