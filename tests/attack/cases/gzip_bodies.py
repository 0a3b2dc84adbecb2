"""Attacks by gzip bodies that grow a thousandfold, take long to decompress, or never end."""

import gzip
from collections.abc import Callable
from functools import cache

from tests.attack.cases.case import JSON, REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.cases.json_bodies import ALLOWED_STATUSES, CHAT, LARGEST_BODY_BYTES, chat_body, json_array
from tests.attack.cases.multipart_forms import EDIT, TYPE
from tests.attack.raw_http import multipart_body, read_response, request_head, send

SIZE = 3 * 2**20
MB = 2**20


def post_gzip(body: Callable[[], bytes], path: str = CHAT, content_type: str = JSON, times: int = 1) -> Attack:
    """Send a gzip body `times` times at once."""

    def attack(target: Target) -> None:
        headers = {"Content-Encoding": "gzip"}
        target.run_concurrently(times, lambda _: target.post(path, body(), content_type=content_type, headers=headers))

    return attack


@cache
def _gigabyte() -> bytes:
    """Return a megabyte of gzip that decompresses to a gigabyte, in members of 16 MB each."""
    return gzip.compress(b" " * (16 * MB)) * 64


@cache
def _largest_accepted() -> bytes:
    """Return 32 KB of gzip that decompress to a body of 31 MB."""
    return gzip.compress(chat_body(b'"x":[' + b" " * LARGEST_BODY_BYTES + b"]"))


@cache
def _lists() -> bytes:
    return gzip.compress(chat_body(b"", json_array(b"[]", LARGEST_BODY_BYTES)))


@cache
def _too_large() -> bytes:
    return gzip.compress(b'{"x":"' + b"a" * (64 * MB))


def _form() -> bytes:
    return gzip.compress(multipart_body([("image", "a.png", b"\0" * (64 * MB))]), 1)


def _empty_members() -> bytes:
    """Return empty members, whose headers and trailers take time to parse."""
    return gzip.compress(b"") * (SIZE // 20)


def _empty_blocks() -> bytes:
    """Return a member of empty blocks (RFC 1951, section 3.2.4)."""
    return gzip.compress(b"", 0)[:10] + b"\0\0\0\xff\xff" * (SIZE // 5)


@cache
def _empty_dynamic_blocks() -> bytes:
    """Return a member of empty blocks, each with a Huffman code of its own (RFC 1951, section 3.2.7)."""
    lengths = {18: 1, 1: 1}  # code lengths of the symbols 18 (a run of zeros) and 1
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    head = [(0, 1), (2, 2), (29, 5), (29, 5), (14, 4), *((lengths.get(symbol, 0), 3) for symbol in order)]
    literals = [(1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7), (0, 1)]  # the only symbol is the end of the block
    block = [*head, *literals, (1, 1), (29 + 30 - 11, 7), (0, 1)]
    bits = "".join(format(value, f"0{size}b")[::-1] for value, size in block * 8)
    data = int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")
    return gzip.compress(b"", 0)[:10] + data * (8 * SIZE // len(data))


def _endless_file_name() -> bytes:
    """Return a member with an endless file name."""
    return b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"a" * SIZE


def one_byte_chunks(target: Target) -> None:
    """Send the largest accepted body in chunks of one byte."""
    body = _largest_accepted()
    headers = {**target.auth_header(), "Content-Type": JSON, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
    with target.connect(timeout=60) as connection:
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        target.sent_bytes += send(connection, request_head("POST", CHAT, {**headers, "Connection": "close"}) + chunks)
        target.record(*read_response(connection))


def repeated_bombs(target: Target) -> None:
    """Send small bodies that are large after decompression, one after the other."""
    body = _too_large()
    for _ in range(10):
        target.post(CHAT, body, headers={"Content-Encoding": "gzip"})


CASES = [
    AttackCase(
        "gzip: a gigabyte in a megabyte", post_gzip(_gigabyte), (413,), prepare=_gigabyte, runs_on_two_workers=True
    ),
    AttackCase("gzip: ten bombs in turn", repeated_bombs, (413,), prepare=_too_large),
    AttackCase(
        "gzip: sixteen bombs at once",
        post_gzip(_too_large, times=16),
        (413, 503),
        prepare=_too_large,
        runs_on_two_workers=True,
    ),
    AttackCase(
        "gzip: 31 MB of spaces in 32 KB", post_gzip(_largest_accepted), ALLOWED_STATUSES, prepare=_largest_accepted
    ),
    AttackCase(
        "gzip: 31 MB of empty lists in 32 KB, eight at once",
        post_gzip(_lists, times=8),
        ALLOWED_STATUSES,
        prepare=_lists,
    ),
    AttackCase("gzip: a body in chunks of a byte", one_byte_chunks, ALLOWED_STATUSES, prepare=_largest_accepted),
    AttackCase("gzip: a form with a file of 64 MB", post_gzip(_form, EDIT, TYPE), (413,)),
    AttackCase("gzip: members of nothing", post_gzip(_empty_members), (400,)),
    AttackCase("gzip: blocks of nothing", post_gzip(_empty_blocks), (400,)),
    AttackCase("gzip: codes of nothing", post_gzip(_empty_dynamic_blocks), (400,), prepare=_empty_dynamic_blocks),
    AttackCase("gzip: a name without end", post_gzip(_endless_file_name), (400,)),
    AttackCase(
        "gzip: nested in itself",
        post_gzip(lambda: gzip.compress(_gigabyte()), times=4),
        REFUSAL_STATUSES,
        prepare=_gigabyte,
    ),
]
