"""HTTP/1.1 on raw sockets, because HTTP libraries refuse to send malformed requests."""

import http.client
import json
import select
import socket
import time
from typing import Any

Address = tuple[str, int]
CONNECTION_CLOSED = 0
"""Status of a response that did not arrive, because the connection was closed."""
TIMED_OUT = -1
"""Status of a response that did not arrive in time on an open connection."""
MAX_ACCEPTED_BYTES = 128 * 2**20
"""More bytes than a server should accept of one request."""
_PIECE = 64 * 1024


def connect(address: Address, source: str = "127.0.0.1", timeout: float = 10.0) -> socket.socket:
    """Return a connection from `source`, any address of 127.0.0.0/8."""
    connection = socket.create_connection(address, timeout=timeout, source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request_head(
    method: str, path: str, headers: dict[str, str], length: int | None = None, host: str = "127.0.0.1"
) -> bytes:
    """Return the request line and headers of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def send(connection: socket.socket, data: bytes) -> int:
    """Send `data` until a response arrives or the connection is lost. Return the number of bytes sent."""
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
    """Send `piece` repeatedly until the server stops reading, closes, or has read `MAX_ACCEPTED_BYTES`.

    Return the number of bytes sent. A server may read on for a moment after a refusal, so that the refusal is not lost
    with the connection.
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
    """Return status and body of a response, or `CONNECTION_CLOSED` or `TIMED_OUT` if there is none."""
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
    """Return all bytes that arrive within `seconds`, or until the server closes."""
    received, deadline = b"", time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not (piece := connection.recv(_PIECE)):
                break
            received += piece
    except OSError:
        pass
    return received


def closes_within(connection: socket.socket, seconds: float) -> bool:
    """Return True if the server closes the connection within `seconds`."""
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
    """Return the body at a path. Raises `AssertionError` for a status other than 200."""
    with connect(address) as connection:
        connection.sendall(request_head("GET", path, {**headers, "Connection": "close"}))
        status, body = read_response(connection, "GET")
    assert status == 200, f"{path}: {status} {body[:200]!r}"
    return body.decode()


def json_bytes(body: Any) -> bytes:
    """Return JSON without spaces."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def multipart_body(
    parts: list[tuple[str, str | None, bytes]], boundary: str = "attack-7e57", part_headers: str = ""
) -> bytes:
    """Return a multipart form (RFC 7578). Each part has a name, a file name or None, and data."""
    pieces = []
    for name, file, data in parts:
        parameters = f'name="{name}"' + (f'; filename="{file}"' if file is not None else "")
        pieces += [
            f"--{boundary}\r\nContent-Disposition: form-data; {parameters}\r\n{part_headers}\r\n".encode(),
            data,
            b"\r\n",
        ]
    return b"".join((*pieces, f"--{boundary}--\r\n".encode()))
