"""Base64 as it travels in URLs."""

import base64
import random
import time
from urllib.parse import quote

import pytest

from gateway.media.inline import from_base64
from gateway.media.unusable import Unusable

LIMIT = 20 * 2**20
DATA = random.Random(5).randbytes(3000)


@pytest.mark.parametrize(
    "text",
    [
        quote(base64.b64encode(DATA + b"x" * rest).decode(), safe="") + end
        for rest in range(3)
        for end in ("", "\n", "%0A", " = ")
    ]
    + ["".join(f"%{ord(letter):02x}" for letter in base64.b64encode(DATA).decode())],
)
def test_escapes_are_read(text: str) -> None:
    assert from_base64(text, limit=LIMIT).startswith(DATA)


@pytest.mark.parametrize("text", ["%", "AAAA%", "AA%zzAA", "%%%%", "AA%C3%A9A", "AAéA%2B", "%3D%3DAAAA", "AA%ud800"])
def test_what_is_no_escape_is_refused(text: str) -> None:
    with pytest.raises(Unusable):
        from_base64(text, limit=LIMIT)


def test_many_escapes_take_no_time() -> None:
    began = time.perf_counter()
    assert from_base64("%41" * 8_000_000, limit=LIMIT) == bytes(6_000_000)
    assert time.perf_counter() - began < 1.5
