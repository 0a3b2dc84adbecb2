"""Attacks by many requests within the limits, which must not add up to much memory."""

import time

from tests.attack.cases.case import JSON, AttackCase, Target
from tests.attack.cases.json_bodies import CHAT, chat_body
from tests.attack.raw_http import request_head, send


def _abandoned_streams(target: Target) -> None:
    """Send eight long prompts to a silent model, and disconnect."""
    body = chat_body(b'"stream":true', b'[{"role":"user","content":"' + b"w" * 7_900_000 + b'"}]').replace(
        b"hello", b"silent"
    )
    connections = []
    for _ in range(8):
        connections.append(target.connect())
        headers = {**target.auth_header(), "Content-Type": JSON}
        target.sent_bytes += send(connections[-1], request_head("POST", CHAT, headers, len(body)) + body)
    for connection in connections:
        assert connection.recv(12) == b"HTTP/1.1 200"
    for connection in connections:
        connection.close()
    time.sleep(0.5)


def _refused_bodies(target: Target) -> None:
    """Send bodies of 31 MB one after the other. Each is refused after all of it has arrived."""
    body = b'{"model":"hello","x":"' + b"a" * (31 * 2**20) + b'"'
    for _ in range(8):
        target.json(CHAT, body)


CASES = [
    AttackCase("sums: long prompts, then disconnects", _abandoned_streams, in_soak=False),
    AttackCase("sums: refused bodies of 31 MB in turn", _refused_bodies, (400,), in_soak=False),
]
