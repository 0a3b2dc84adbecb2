"""References that cost more than they weigh: data URLs, and URLs of servers that the attacker runs."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

from tests.attack.kinds.kind import REFUSED, Attack, Kind, Target
from tests.attack.wire import encoded

CHAT = "/v1/chat/completions"
SIZE = 3 * 2**20
_LARGE = 31 * 2**20
_ANSWERED = (200, *REFUSED)
_BESIDE = ("chat", "picture", "document")


def part(url: str) -> bytes:
    """A chat with a picture that lies there."""
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return encoded({"model": "sighted", "messages": [{"role": "user", "content": content}]})


def file(data: str, name: str = "a.txt") -> bytes:
    """A chat with a document that lies there."""
    content = [{"type": "file", "file": {"file_data": data, "filename": name}}]
    return encoded({"model": "hello", "messages": [{"role": "user", "content": content}]})


def said(body: Callable[[], bytes], path: str = CHAT, times: int = 1) -> Attack:
    """Send a chat that holds its reference itself."""

    def attack(target: Target) -> None:
        written = body()
        target.at_once(times, lambda _: target.json(path, written))

    return attack


def _image(url: str) -> bytes:
    return encoded({"model": "shapes", "prompt": "x", "image": url})


_INLINE: dict[str, Callable[[], bytes]] = {
    "percent signs": lambda: part("data:," + "%41" * (SIZE // 3)),
    "percent signs that say nothing": lambda: part("data:," + "%" * SIZE),
    "semicolons": lambda: part("data:" + ";" * SIZE + ","),
    "parameters": lambda: part("data:" + ";a=b" * (SIZE // 4) + ","),
    "base64 with spaces between": lambda: part("data:image/png;base64," + "A " * (SIZE // 2)),
    "base64 of escapes": lambda: part("data:image/png;base64," + "%41" * (SIZE // 3)),
    "base64 of padding": lambda: part("data:image/png;base64," + "=" * SIZE),
    "base64 of another alphabet": lambda: part("data:image/png;base64," + "-_" * (SIZE // 2)),
    "base64 that is none": lambda: part("data:image/png;base64," + "\u00e9" * (SIZE // 2)),
    "no comma": lambda: part("data:" + "a" * SIZE),
    "a document of percent signs": lambda: file("data:text/plain," + "%41" * (SIZE // 3)),
    "a document of spaces": lambda: file("data:text/plain;base64," + "QUFB " * (SIZE // 5)),
}
_LARGEST: dict[str, Callable[[], bytes]] = {
    "percent signs": lambda: part("data:," + "%41" * (_LARGE // 3)),
    "semicolons": lambda: part("data:" + ";" * _LARGE + ","),
    "base64 with spaces between": lambda: part("data:image/png;base64," + "A " * (_LARGE // 2)),
}


@contextlib.contextmanager
def site(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server of the attacker's: `serve` has each connection, until the event is set."""
    ending = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.recv(65536)
            serve(connection, ending)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
        finally:
            ending.set()
            listening.shutdown(socket.SHUT_RDWR)


def fetched(serve: Callable[[socket.socket, threading.Event], None], within: float = 8.0, times: int = 1) -> Attack:
    """Have the gateway fetch from such a server; `media_timeout` is 2 s here, and the answer must come soon after."""

    def attack(target: Target) -> None:
        with site(serve) as url:
            began = time.monotonic()
            target.at_once(times, lambda _: target.json(CHAT, part(url), timeout=30))
            taken = time.monotonic() - began
        assert taken < within, f"it took {taken:.1f} s, of which 2 are allowed"

    return attack


def _again(piece: bytes, pause: float = 0.0, first: bytes = b"") -> Callable[[socket.socket, threading.Event], None]:
    def serve(connection: socket.socket, ending: threading.Event) -> None:
        if first:
            connection.sendall(first)
        while not ending.is_set():
            connection.sendall(piece)
            if pause:
                time.sleep(pause)

    return serve


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
    "100 Continue without end": _again(b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "103 Early Hints without end": _again(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500),
    "headers without end": _again(b"X: a\r\n" * 1000, first=_OK),
    "a header without end": _again(b"a" * 8192, first=_OK + b"X: "),
    "chunks of one byte without end": _again(b"1\r\na\r\n" * 2000, first=_OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "bytes without end": _again(bytes(65536), first=_OK + b"\r\n"),
    "a byte now and then": _again(b"a", 0.2, _OK + b"Content-Length: 100000\r\n\r\n"),
    "nothing": lambda connection, ending: bool(ending.wait(15)) and None,
    "a redirect to itself": _redirect,
    "a bomb of gzip": _bomb,
}

KINDS = [
    *(Kind(f"data URLs: {name}", said(body), _ANSWERED) for name, body in _INLINE.items()),
    *(Kind(f"data URLs: 31 MB of {name}", said(body), _ANSWERED, beside=("chat", "picture"), costly=True)
      for name, body in _LARGEST.items()),
    Kind("data URLs: percent signs to draw into", said(lambda: _image("data:," + "%41" * (SIZE // 3)),
                                                     "/v1/images/generations"), _ANSWERED),
    *(Kind(f"URLs: {name}", fetched(serve), _ANSWERED, costly=name.startswith("100"))
      for name, serve in _SERVERS.items()),
    Kind("URLs: twenty of a server that says nothing", fetched(_SERVERS["nothing"], 14.0, 20), _ANSWERED),
]  # fmt: skip
