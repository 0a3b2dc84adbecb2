"""Many requests of one caller, each within its bounds: what they leave behind together."""

import time

from tests.attack.cases.case import JSON, AttackCase, Target
from tests.attack.cases.json_bodies import CHAT, chat_body
from tests.attack.raw_http import request_head, send


def _abandoned_streams(target: Target) -> None:
    """Have a model that says nothing read eight long texts, and hang up on it."""
    body = chat_body(b'"stream":true', b'[{"role":"user","content":"' + b"w" * 7_900_000 + b'"}]').replace(
        b"hello", b"silent"
    )
    asked = []
    for _ in range(8):
        asked.append(target.connect())
        given = {**target.auth_header(), "Content-Type": JSON}
        target.sent_bytes += send(asked[-1], request_head("POST", CHAT, given, len(body)) + body)
    for connection in asked:
        assert connection.recv(12) == b"HTTP/1.1 200"
    for connection in asked:
        connection.close()
    time.sleep(0.5)


def _refused_bodies(target: Target) -> None:
    """Send bodies of 31 MB one after the other, each of which is refused when all of it is there."""
    body = b'{"model":"hello","x":"' + b"a" * (31 * 2**20) + b'"'
    for _ in range(8):
        target.json(CHAT, body)


CASES = [
    AttackCase("sums: long texts for a model, given up", _abandoned_streams, in_soak=False),
    AttackCase("sums: refused bodies of 31 MB in turn", _refused_bodies, (400,), in_soak=False),
]
