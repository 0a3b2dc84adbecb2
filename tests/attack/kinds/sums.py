"""Many requests of one caller, each within its bounds: what they leave behind together."""

import time

from tests.attack.kinds.bodies import CHAT, chat
from tests.attack.kinds.kind import JSON, Kind, Target
from tests.attack.wire import head, send


def _given_up(target: Target) -> None:
    """Have a model that says nothing read eight long texts, and hang up on it."""
    body = chat(b'"stream":true', b'[{"role":"user","content":"' + b"w" * 7_900_000 + b'"}]').replace(
        b"hello", b"silent"
    )
    asked = []
    for _ in range(8):
        asked.append(target.connect())
        given = {**target.key(), "Content-Type": JSON}
        target.sent += send(asked[-1], head("POST", CHAT, given, len(body)) + body)
    for connection in asked:
        assert connection.recv(12) == b"HTTP/1.1 200"
    for connection in asked:
        connection.close()
    time.sleep(0.5)


def _refused(target: Target) -> None:
    """Send bodies of 31 MB one after the other, each of which is refused when all of it is there."""
    body = b'{"model":"hello","x":"' + b"a" * (31 * 2**20) + b'"'
    for _ in range(8):
        target.json(CHAT, body)


KINDS = [
    Kind("sums: long texts for a model, given up", _given_up, soaked=False),
    Kind("sums: refused bodies of 31 MB in turn", _refused, (400,), soaked=False),
]
