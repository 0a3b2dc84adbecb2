"""Attack cases, and the target that they get."""

import socket
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.attack.gateways import ATTACKER, AttackedGateway
from tests.attack.raw_http import CONNECTION_CLOSED, TIMED_OUT, connect, json_bytes, read_response, request_head, send

JSON = "application/json"
REFUSAL_STATUSES = (400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 421, 422, 429, 431, 503)
"""Statuses of refusals. A server that failed (500) has not refused anything."""


@dataclass(slots=True)
class Target:
    """The attacked gateway. Counts the bytes sent and the statuses received."""

    gateway: AttackedGateway
    sent_bytes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)
    """The first characters of refusals."""

    def connect(self, source: str = "127.0.0.1", timeout: float = 10.0) -> socket.socket:
        """Return a new connection. Raises `OSError`."""
        return connect(self.gateway.address, source, timeout)

    def auth_header(self, key: str | None = ATTACKER) -> dict[str, str]:
        """Return the header with `key`, no header for None."""
        return self.gateway.auth_header(key) if key else {}

    def post(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        key: str | None = ATTACKER,
        headers: dict[str, str] | None = None,
        timeout: float = 60.0,
        method: str = "POST",
        source: str = "127.0.0.1",
    ) -> tuple[int, bytes]:
        """Send a request, record the status of the response, and return both status and body."""
        with self.connect(source, timeout) as connection:
            common = {**self.auth_header(key), "Content-Type": content_type, "Connection": "close"}
            head = request_head(method, path, common | (headers or {}), len(body))
            self.sent_bytes += send(connection, head + body)
            status, text = read_response(connection, method)
        self.record(status, text)
        return status, text

    def json(self, path: str, body: Any, **options: Any) -> tuple[int, bytes]:
        """Send a request with a JSON body. `options` are those of `post`."""
        return self.post(path, body if isinstance(body, bytes) else json_bytes(body), **options)

    def record(self, status: int, text: bytes = b"") -> None:
        """Count a response."""
        self.statuses[status] += 1
        if status not in (200, CONNECTION_CLOSED, TIMED_OUT) and len(self.refusals) < 20:
            self.refusals.append(f"{status} {text[:300].decode('utf-8', 'replace')}")

    def run_concurrently(self, count: int, work: Callable[[int], Any]) -> list[Any]:
        """Call `work` `count` times in parallel, with the numbers from 0. Return the results in order."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, range(count)))


Attack = Callable[[Target], None]


@dataclass(frozen=True, slots=True)
class AttackCase:
    """One attack, and its expected result.

    `attack` uses the target, and raises `AssertionError` if the gateway misbehaves. All recorded statuses must be among
    `statuses`, and the cost for other callers must be within the limits of `tests.attack.cost_meter`.
    """

    name: str
    attack: Attack
    statuses: Collection[int] = REFUSAL_STATUSES
    setup: str = "keys"
    """One of `tests.attack.gateways.SETUPS`."""
    honest_requests: Collection[str] = ("chat",)
    """Requests of the honest client meanwhile, of `tests.attack.honest_client.REQUESTS`."""
    in_soak: bool = True
    """True if the soak runs it as well. The gateway of the soak accepts smaller bodies, and its models are real."""
    runs_on_two_workers: bool = False
    """True if it also runs on a gateway with two workers."""
    prepare: Callable[[], object] | None = None
    """Prepares slow inputs before the measurement. It must cache its own result."""
