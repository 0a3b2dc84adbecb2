"""Bodies in gzip that become a thousand times as long, take long for what they are, or never come to an end."""

import gzip
from collections.abc import Callable
from functools import cache

from tests.attack.kinds.bodies import ANSWERED, CHAT, LARGEST, chat, many
from tests.attack.kinds.forms import EDIT, TYPE
from tests.attack.kinds.kind import JSON, REFUSED, Attack, Kind, Target
from tests.attack.wire import answer, head, multipart, send

SIZE = 3 * 2**20
MB = 2**20


def packed(body: Callable[[], bytes], path: str = CHAT, content_type: str = JSON, times: int = 1) -> Attack:
    """Send what says that it is gzip; several at once where `times` says so."""

    def attack(target: Target) -> None:
        headers = {"Content-Encoding": "gzip"}
        target.at_once(times, lambda _: target.post(path, body(), content_type=content_type, headers=headers))

    return attack


@cache
def _gigabyte() -> bytes:
    """A megabyte, in members of 16 MB."""
    return gzip.compress(b" " * (16 * MB)) * 64


@cache
def _just_taken() -> bytes:
    """32 KB that are a body of 31 MB."""
    return gzip.compress(chat(b'"x":[' + b" " * LARGEST + b"]"))


@cache
def _lists() -> bytes:
    return gzip.compress(chat(b"", many(b"[]", LARGEST)))


@cache
def _too_large() -> bytes:
    return gzip.compress(b'{"x":"' + b"a" * (64 * MB))


def _form() -> bytes:
    return gzip.compress(multipart([("image", "a.png", b"\0" * (64 * MB))]), 1)


def _nothing() -> bytes:
    """Members that hold nothing: each has a beginning and an end that take time."""
    return gzip.compress(b"") * (SIZE // 20)


def _blocks() -> bytes:
    """A member of empty blocks (RFC 1951, section 3.2.4)."""
    return gzip.compress(b"", 0)[:10] + b"\0\0\0\xff\xff" * (SIZE // 5)


@cache
def _codes() -> bytes:
    """A member of empty blocks, each with a code that has to be made first (RFC 1951, section 3.2.7)."""
    lengths = {18: 1, 1: 1}  # of the code of lengths: of many noughts, and of 1
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    head = [(0, 1), (2, 2), (29, 5), (29, 5), (14, 4), *((lengths.get(one, 0), 3) for one in order)]
    literals = [(1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7), (0, 1)]  # none but the end of a block
    block = [*head, *literals, (1, 1), (29 + 30 - 11, 7), (0, 1)]
    bits = "".join(format(value, f"0{size}b")[::-1] for value, size in block * 8)
    data = int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")
    return gzip.compress(b"", 0)[:10] + data * (8 * SIZE // len(data))


def _name() -> bytes:
    """A member whose file has a name without end."""
    return b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"a" * SIZE


def by_bytes(target: Target) -> None:
    """Send it in chunks of a byte, so that there is a little to unpack again and again."""
    body = _just_taken()
    headers = {**target.key(), "Content-Type": JSON, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
    with target.connect(timeout=60) as connection:
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        target.sent += send(connection, head("POST", CHAT, {**headers, "Connection": "close"}) + chunks)
        target.note(*answer(connection))


def in_turn(target: Target) -> None:
    """Send one after the other what costs little to send and much to unpack."""
    body = _too_large()
    for _ in range(10):
        target.post(CHAT, body, headers={"Content-Encoding": "gzip"})


KINDS = [
    Kind("gzip: a gigabyte in a megabyte", packed(_gigabyte), (413,), prepare=_gigabyte, costly=True),
    Kind("gzip: ten bombs in turn", in_turn, (413,), prepare=_too_large),
    Kind("gzip: sixteen bombs at once", packed(_too_large, times=16), (413, 503), prepare=_too_large, costly=True),
    Kind("gzip: 31 MB of spaces in 32 KB", packed(_just_taken), ANSWERED, prepare=_just_taken),
    Kind("gzip: 31 MB of empty lists in 32 KB, eight at once", packed(_lists, times=8), ANSWERED, prepare=_lists),
    Kind("gzip: a body in chunks of a byte", by_bytes, ANSWERED, prepare=_just_taken),
    Kind("gzip: a form with a file of 64 MB", packed(_form, EDIT, TYPE), (413,)),
    Kind("gzip: members of nothing", packed(_nothing), (400,)),
    Kind("gzip: blocks of nothing", packed(_blocks), (400,)),
    Kind("gzip: codes of nothing", packed(_codes), (400,), prepare=_codes),
    Kind("gzip: a name without end", packed(_name), (400,)),
    Kind("gzip: nested in itself", packed(lambda: gzip.compress(_gigabyte()), times=4), REFUSED, prepare=_gigabyte),
]
