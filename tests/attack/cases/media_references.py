"""Attacks by references that cost more than their size: data URLs, and URLs of the attacker's servers."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.raw_http import json_bytes

CHAT = "/v1/chat/completions"
SIZE = 3 * 2**20
_LARGE = 31 * 2**20
_ALLOWED_STATUSES = (200, *REFUSAL_STATUSES)
_HONEST_REQUESTS = ("chat", "picture", "document")


def image_chat(url: str) -> bytes:
    """Return a chat with an image at a URL."""
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return json_bytes({"model": "sighted", "messages": [{"role": "user", "content": content}]})


def document_chat(data: str, name: str = "a.txt") -> bytes:
    """Return a chat with a document at a URL."""
    content = [{"type": "file", "file": {"file_data": data, "filename": name}}]
    return json_bytes({"model": "hello", "messages": [{"role": "user", "content": content}]})


def post_inline(body: Callable[[], bytes], path: str = CHAT, times: int = 1) -> Attack:
    """Send a body with an inline reference `times` times at once."""

    def attack(target: Target) -> None:
        data = body()
        target.run_concurrently(times, lambda _: target.json(path, data))

    return attack


def _image(url: str) -> bytes:
    return json_bytes({"model": "shapes", "prompt": "x", "image": url})


_INLINE: dict[str, Callable[[], bytes]] = {
    "percent signs": lambda: image_chat("data:," + "%41" * (SIZE // 3)),
    "percent signs without digits": lambda: image_chat("data:," + "%" * SIZE),
    "semicolons": lambda: image_chat("data:" + ";" * SIZE + ","),
    "parameters": lambda: image_chat("data:" + ";a=b" * (SIZE // 4) + ","),
    "base64 with spaces between": lambda: image_chat("data:image/png;base64," + "A " * (SIZE // 2)),
    "base64 of escapes": lambda: image_chat("data:image/png;base64," + "%41" * (SIZE // 3)),
    "base64 of padding": lambda: image_chat("data:image/png;base64," + "=" * SIZE),
    "base64 of another alphabet": lambda: image_chat("data:image/png;base64," + "-_" * (SIZE // 2)),
    "base64 that is none": lambda: image_chat("data:image/png;base64," + "\u00e9" * (SIZE // 2)),
    "no comma": lambda: image_chat("data:" + "a" * SIZE),
    "a document of percent signs": lambda: document_chat("data:text/plain," + "%41" * (SIZE // 3)),
    "a document of spaces": lambda: document_chat("data:text/plain;base64," + "QUFB " * (SIZE // 5)),
}
_LARGEST: dict[str, Callable[[], bytes]] = {
    "percent signs": lambda: image_chat("data:," + "%41" * (_LARGE // 3)),
    "semicolons": lambda: image_chat("data:" + ";" * _LARGE + ","),
    "base64 with spaces between": lambda: image_chat("data:image/png;base64," + "A " * (_LARGE // 2)),
}


@contextlib.contextmanager
def attacker_server(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Run a server of the attacker. `serve` handles each connection, until the event is set."""
    ending = threading.Event()

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.recv(65536)
            serve(connection, ending)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
        finally:
            ending.set()
            listening.shutdown(socket.SHUT_RDWR)


def fetch_from_server(
    serve: Callable[[socket.socket, threading.Event], None], within: float = 8.0, times: int = 1
) -> Attack:
    """Make the gateway fetch from a server of the attacker, `times` times at once.

    `media_timeout` is 2 s. The responses must arrive `within` seconds.
    """

    def attack(target: Target) -> None:
        with attacker_server(serve) as url:
            began = time.monotonic()
            target.run_concurrently(times, lambda _: target.json(CHAT, image_chat(url), timeout=30))
            elapsed = time.monotonic() - began
        assert elapsed < within, f"it took {elapsed:.1f} s; the timeout is 2 s"

    return attack


def _send_forever(
    piece: bytes, pause: float = 0.0, first: bytes = b""
) -> Callable[[socket.socket, threading.Event], None]:
    def serve(connection: socket.socket, ending: threading.Event) -> None:
        if first:
            connection.sendall(first)
        while not ending.is_set():
            connection.sendall(piece)
            if pause:
                time.sleep(pause)

    return serve


def _stay_silent(connection: socket.socket, ending: threading.Event) -> None:
    ending.wait(15)


def _redirect(connection: socket.socket, ending: threading.Event) -> None:
    port = connection.getsockname()[1]
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/a.png\r\nContent-Length: 0\r\n\r\n" % port)


def _bomb(connection: socket.socket, ending: threading.Event) -> None:
    data = gzip.compress(bytes(200 * 2**20), 9)
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
        % len(data)
    )
    connection.sendall(data)


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
_SERVERS: dict[str, Callable[[socket.socket, threading.Event], None]] = {
    "100 Continue without end": _send_forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "103 Early Hints without end": _send_forever(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500),
    "headers without end": _send_forever(b"X: a\r\n" * 1000, first=_OK),
    "a header without end": _send_forever(b"a" * 8192, first=_OK + b"X: "),
    "chunks of one byte without end": _send_forever(
        b"1\r\na\r\n" * 2000, first=_OK + b"Transfer-Encoding: chunked\r\n\r\n"
    ),
    "bytes without end": _send_forever(bytes(65536), first=_OK + b"\r\n"),
    "a byte now and then": _send_forever(b"a", 0.2, _OK + b"Content-Length: 100000\r\n\r\n"),
    "nothing": _stay_silent,
    "a redirect to itself": _redirect,
    "a bomb of gzip": _bomb,
}

CASES = [
    *(AttackCase(f"data URLs: {name}", post_inline(body), _ALLOWED_STATUSES) for name, body in _INLINE.items()),
    *(
        AttackCase(
            f"data URLs: 31 MB of {name}",
            post_inline(body),
            _ALLOWED_STATUSES,
            honest_requests=("chat", "picture"),
            runs_on_two_workers=True,
        )
        for name, body in _LARGEST.items()
    ),
    AttackCase(
        "data URLs: percent signs in an image generation",
        post_inline(lambda: _image("data:," + "%41" * (SIZE // 3)), "/v1/images/generations"),
        _ALLOWED_STATUSES,
    ),
    *(
        AttackCase(
            f"URLs: {name}", fetch_from_server(serve), _ALLOWED_STATUSES, runs_on_two_workers=name.startswith("100")
        )
        for name, serve in _SERVERS.items()
    ),
    AttackCase(
        "URLs: twenty of a silent server",
        fetch_from_server(_SERVERS["nothing"], 14.0, 20),
        _ALLOWED_STATUSES,
    ),
]
