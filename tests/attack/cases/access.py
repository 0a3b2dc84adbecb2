"""Attacks on access control: keys, private addresses, paths, and shares of callers."""

import contextlib
import json
import socket
import threading
import time
from functools import partial
from urllib.parse import quote

from tests.attack.cases.case import REFUSAL_STATUSES, AttackCase, Target
from tests.attack.cases.media_references import CHAT, document_chat, image_chat
from tests.attack.raw_http import CONNECTION_CLOSED, get_text, json_bytes, read_response, request_head

_PUBLIC_ROUTES = (
    "/health/live",
    "/health/ready",
    "/metrics",
    "/docs",
    "/docs/oauth2-redirect",
    "/openapi.json",
    "/files/{name}",
)
"""Routes without a key: those of monitors, of the API documentation, and of files, whose URLs are signed."""


def _routes(target: Target) -> list[tuple[str, str]]:
    document = json.loads(get_text(target.gateway.address, "/openapi.json", {}))
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if not path.startswith(tuple(route.split("{")[0] for route in _PUBLIC_ROUTES))
    ]


def missing_or_wrong_keys(target: Target) -> None:
    """Call every route with a missing or wrong key. The answer must be 401, before the body has arrived."""
    routes = _routes(target)
    assert len(routes) > 12, routes
    invalid_headers = [
        {}, {"Authorization": "Bearer"}, {"Authorization": "Bearer sk-nobody"}, {"Authorization": "Basic c2s6"},
        {"Authorization": "Bearer sk-attacker2"}, {"Authorization": "sk-attacker"}, {"X-Api-Key": "sk-attacker"},
        {"Authorization": "Bearer " + "a" * 30_000},
    ]  # fmt: skip

    def send(number: int) -> None:
        method, path = routes[number]
        for headers in invalid_headers:
            url = path.replace("{platform}", "tritonic").replace("{", "").replace("}", "")
            with target.connect(timeout=5) as connection:
                # The head announces a large body, which is never sent.
                length = 10_000_000 if method in ("POST", "PUT", "PATCH") else None
                connection.sendall(request_head(method, url, {**headers, "Content-Type": "application/json"}, length))
                status, text = read_response(connection, method)
            target.record(status, text)
            assert status == 401, f"{method} {url} with {str(headers)[:60]} is answered {status}"

    target.run_concurrently(len(routes), send)


_PRIVATE = (
    "localhost", "LOCALHOST.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001",
    "127.0.0.2", "127.255.255.254", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fe80::1%25lo]", "[fc00::1]", "[fd00::1]",
    "169.254.169.254", "0xa9fea9fe", "2852039166", "[::ffff:169.254.169.254]", "10.0.0.1", "172.16.0.1", "192.168.0.1",
    "100.64.0.1", "198.18.0.1", "192.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "[ff02::1]", "127.0.0.1%00.a",
    "①②⑦.⓪.⓪.①", "127。0。0。1", "a@127.0.0.2", "127.0.0.1@127.0.0.2", "127.0.0.1 ", "127.0.0.1:80@127.0.0.2",
    "localhost.localdomain", "ip6-localhost", "127.0.0.1\\@127.0.0.2", "127.0.0.1#@127.0.0.2",
)  # fmt: skip
_SCHEMES = (
    "file:///etc/passwd", "FILE:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:1/_x", "dict://127.0.0.1:1/",
    "unix:///var/run/docker.sock", "//127.0.0.1/", "/etc/passwd", "jar:http://127.0.0.1/!/", "http:127.0.0.1", "http:///a",
    "http://", "http://[", "http://127.0.0.1:99999/", "https://127.0.0.1:x/",
)  # fmt: skip


def private_addresses(target: Target) -> None:
    """Refer to private addresses in every spelling. The gateway may fetch from the one allowed spelling only."""
    reached: list[str] = []
    with contextlib.ExitStack() as stack:
        for host in ("127.0.0.2", "::1"):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with contextlib.suppress(OSError):
                listening = stack.enter_context(socket.create_server((host, 0), family=family))
                threading.Thread(target=_record_connections, args=(listening, reached), daemon=True).start()
                port = listening.getsockname()[1]
        urls = [f"http://{name}:{port}/a.png" for name in _PRIVATE] + list(_SCHEMES)

        def send(batch: list[str], number: int) -> None:
            for body in (image_chat(batch[number]), document_chat(batch[number])):
                status, text = target.json(CHAT, body)
                # The one allowed spelling leads to a port where nothing listens.
                assert status in (400, 403, 422), f"{batch[number]} is answered {status} {text[:200]!r}"

        for begin in range(0, len(urls), 8):
            batch = urls[begin : begin + 8]
            target.run_concurrently(len(batch), partial(send, batch))
    assert not reached, f"connections came from {reached}"


def _record_connections(listening: socket.socket, reached: list[str]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, peer = listening.accept()
            reached.append(str(peer))
            connection.close()


def path_traversal(target: Target) -> None:
    """Request paths that lead out of the folder of files, or to another platform. None may be served."""
    parents = ["../", "..%2f", "%2e%2e/", "..%5c", "..\\", "....//"]
    parents += ["%252e%252e%252f", "..;/", "%c0%ae%c0%ae/", "/", "%00"]
    paths = [f"/files/{step * 4}etc/passwd" for step in parents] + [f"/{quote(step)}/v1/models" for step in parents]
    paths += [f"/tritonic/v1/images/{step * 3}tasks.sqlite" for step in parents]
    paths += ["/files/.", "/files/..", "/files/signing.key", "/..", "//etc/passwd", "/./v1/../../etc/passwd", "*"]

    def send(number: int) -> None:
        with target.connect(timeout=5) as connection:
            connection.sendall(request_head("GET", paths[number], {**target.auth_header(), "Connection": "close"}))
            status, text = read_response(connection, "GET")
        target.record(status, text)
        assert b"root:" not in text and b"SQLite" not in text, f"{paths[number]}: {text[:100]!r}"

    target.run_concurrently(len(paths), send)


def task_quota(target: Target) -> None:
    """Submit 150 tasks at once. Exactly the quota of the key must be accepted, and another key can still submit."""
    body = json_bytes({"model": "slow-painter", "prompt": "a red circle", "async": True})
    path = "/tritonic/v1/images/generations"
    responses = target.run_concurrently(150, lambda _: target.json(path, body))
    accepted = [json.loads(text)["id"] for status, text in responses if status == 200]
    status, text = target.json(path, body, key="sk-honest")
    assert status == 200, f"another key is answered {status} {text[:200]!r}"
    for task_id in [*accepted, json.loads(text)["id"]]:
        headers = {"Connection": "close"} | target.auth_header(
            "sk-honest" if task_id not in accepted else "sk-attacker"
        )
        with target.connect() as connection:
            connection.sendall(request_head("DELETE", f"/tritonic/v1/images/{task_id}", headers))
            assert read_response(connection, "DELETE")[0] == 200
    assert len(accepted) == 40, f"{len(accepted)} tasks are open where a key may have 40"


def many_streams(target: Target) -> None:
    """Open more streams of a model than one caller may have. Other callers can still open streams."""
    body = b'{"model":"slow","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
    deadline = time.monotonic() + 2.0

    def send(_: int) -> None:
        while time.monotonic() < deadline:
            target.json(CHAT, body)

    target.run_concurrently(60, send)


CASES = [
    AttackCase("access: every route without a key, with a wrong one, without its body", missing_or_wrong_keys, (401,)),
    AttackCase("access: private addresses in every spelling", private_addresses),
    AttackCase("access: paths out of the folder", path_traversal, (*REFUSAL_STATUSES, CONNECTION_CLOSED)),
    AttackCase("shares: 150 tasks at once of a key that may have 40", task_quota, (200, 429), setup="tasks",
    runs_on_two_workers=True),
    AttackCase("shares: more streams of a model than one caller may have", many_streams, (200, 429), setup="small",
         honest_requests=("slow chat",)),
]  # fmt: skip
