"""The honest client during an attack. It has another key and address, and sends small requests that must succeed."""

import base64
import io
import statistics
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

from PIL import Image

from tests.attack.gateways import HONEST, AttackedGateway
from tests.attack.raw_http import connect, json_bytes, multipart_body, read_response, request_head

SOURCE = "127.0.0.2"
"""The source address of the honest client."""
_PAGE = base64.b64encode(b"<html><body><h1>Prices</h1><p>A bolt costs 0.10.</p></body></html>").decode()


def _image() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((128, 128), 50).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _chat(content: Any, model: str = "hello") -> tuple[str, str, bytes]:
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    return "/v1/chat/completions", "application/json", json_bytes(body)


def _edit() -> tuple[str, str, bytes]:
    fields = [("model", None, b"shapes"), ("prompt", None, b"a red circle"), ("response_format", None, b"b64_json")]
    form = multipart_body([*fields, ("image", "a.png", _image())])
    return "/v1/images/edits", "multipart/form-data; boundary=attack-7e57", form


REQUESTS = {
    "chat": (_chat("Hello"), 0.03),
    "slow chat": (_chat("Hello", "slow"), 0.03),
    "picture": (_edit(), 0.1),
    "document": (
        _chat([{"type": "file", "file": {"file_data": f"data:text/html;base64,{_PAGE}", "filename": "a.html"}}]),
        0.3,
    ),
}
"""The requests by name: path, content type and body, and the pause after each response in seconds."""


class HonestClient:
    """Sends requests repeatedly inside a `with`, each on a connection of its own, so that they reach all workers."""

    def __init__(self, served: AttackedGateway, names: Collection[str] = ("chat",)) -> None:
        """Send the requests `names` of `REQUESTS` in parallel."""
        self._served = served
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._send_repeatedly, args=(name,), daemon=True) for name in names]
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        """The latencies of each request in seconds."""
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _send_repeatedly(self, name: str) -> None:
        (path, content_type, body), pause = REQUESTS[name]
        headers = {**self._served.auth_header(HONEST), "Content-Type": content_type, "Connection": "close"}
        request = request_head("POST", path, headers, len(body)) + body
        while True:
            began = time.perf_counter()
            status, text = self._send(request)
            latency = time.perf_counter() - began
            self.seconds[name].append(latency)
            if status != 200:
                self.failures.append(f"{name}: {status} after {latency:.2f} s {text[:200]!r}")
            if self._ending.wait(pause):
                return

    def _send(self, request: bytes) -> tuple[int | str, bytes]:
        try:
            with connect(self._served.address, SOURCE, timeout=30) as connection:
                connection.sendall(request)
                return read_response(connection)
        except OSError as error:
            return type(error).__name__, b""


def percentile(seconds: Collection[float], share: float) -> float:
    """Return a percentile of latencies. `share` is from 0 to 1."""
    if len(seconds) < 2:
        return max(seconds, default=0.0)
    return statistics.quantiles(seconds, n=100, method="inclusive")[min(98, round(share * 100) - 1)]
