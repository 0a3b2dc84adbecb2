"""How a server treats clients that hang up, read nothing, send endless headers, or are there when it is to stop.

What the gateway has in its hands is read from its own metrics, so that it does not matter who told it.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.scripted_triton import MODEL
from benchmarks.timed_streams import chat_body

_TIMEOUT_SECONDS = 5.0
_FILLING, _WATCHED = 10.0, 3.0
"""Seconds that buffers have to fill, and for which what still flows is counted."""
_HEADERS = 4 * 1024 * 1024


def metric(url: str, name: str) -> float:
    """The sum of a metric's series."""
    lines = httpx.get(f"{url}/metrics", trust_env=False, timeout=20).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@contextlib.contextmanager
def open_request(url: str, tokens: int, *, stream: bool, buffer: int = 0) -> Iterator[socket.socket]:
    """A bare connection with a request on it; the system keeps `buffer` bytes for it, where that is given."""
    told = json.dumps(chat_body(MODEL, tokens, stream=stream)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with _connected(url, buffer) as connection:
        connection.sendall(head % len(told) + told)
        yield connection


def _connected(url: str, buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(_TIMEOUT_SECONDS)
    connection.connect(("127.0.0.1", urlsplit(url).port))
    return connection


def disconnect_seconds(url: str, *, stream: bool) -> float | None:
    """Seconds after a client hung up until the gateway works for it no more; None: not within five seconds."""
    with open_request(url, 1000, stream=stream) as connection:
        if stream:
            while b" 0" not in connection.recv(65536):  # the first token: a time of the system's clock
                pass
        while metric(url, "tritonic_in_flight") < 1:
            time.sleep(0.01)
    began = time.monotonic()
    while metric(url, "tritonic_in_flight") > 0:
        if time.monotonic() - began > _TIMEOUT_SECONDS:
            return None
        time.sleep(0.005)
    return time.monotonic() - began


def slow_reader_cost(url: str, process: psutil.Process) -> tuple[float, float]:
    """Tokens a second that the gateway takes for a client that has read nothing for long, and by how many megabytes it
    has grown."""
    worker = max((process, *process.children(recursive=True)), key=lambda each: each.memory_info().rss)
    idle = worker.memory_info().rss
    with open_request(url, 10_000_000, stream=True, buffer=4096):
        time.sleep(_FILLING)
        before = metric(url, "tritonic_tokens_out_total")
        time.sleep(_WATCHED)
        after, grown = metric(url, "tritonic_tokens_out_total"), worker.memory_info().rss - idle
    return (after - before) / _WATCHED, grown / 1e6


def endless_header(url: str) -> tuple[int, str]:
    """Bytes of one header that are taken before the server refuses them, and its answer."""
    sent, piece = 0, b"a" * 4096
    with _connected(url) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: ")
        try:
            while sent < _HEADERS:
                connection.sendall(piece)
                sent += len(piece)
                time.sleep(0.0005)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            return sent, connection.recv(4096).split(b"\r\n")[0].decode(errors="replace") or "closed"
    return sent, "closed"


def finishes_after_sigterm(url: str, process: psutil.Process, tokens: int) -> bool:
    """Whether an answer that is under way when the server is asked to stop is sent to its end."""
    with open_request(url, tokens, stream=True) as connection:
        connection.settimeout(30)
        seen = connection.recv(65536)
        process.terminate()
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                seen += part
                if b"[DONE]" in seen:
                    return True
    return b"[DONE]" in seen
