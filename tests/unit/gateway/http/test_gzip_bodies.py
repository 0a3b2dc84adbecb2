"""Decompression of gzip, in all forms that compressors write."""

import gzip
import os
import zlib

import pytest

from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.http.gzip_bodies import GzipDecoder

MB = 1024 * 1024


def decompress_all(packed: bytes, limit: int = 8 * MB, enough: int | None = None) -> bytes:
    gunzip = GzipDecoder(bytearray(packed), limit)
    while not gunzip.decompress(enough):
        assert enough is not None and enough <= len(gunzip.body) <= enough + MB
        enough = len(gunzip.body)
    return bytes(gunzip.body)


BODIES = {
    "nothing": b"",
    "a byte": b"x",
    "noise": os.urandom(3 * MB),
    "zeros": bytes(3 * MB),
    "a piece": bytes(256 * 1024),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("level", [0, 1, 9])
def test_decompression_returns_the_original(name: str, level: int) -> None:
    body = BODIES[name]
    for packed in (gzip.compress(body, level), b"".join(gzip.compress(half, level) for half in (body[:9], body[9:]))):
        assert decompress_all(packed) == decompress_all(packed, enough=0) == body
        assert decompress_all(packed, limit=len(body)) == body
        if body:
            with pytest.raises(RequestTooLarge):
                decompress_all(packed, limit=len(body) - 1)


def test_every_truncated_body_is_refused() -> None:
    packed = gzip.compress(b"hello" * 100) + gzip.compress(b"world" * 100)
    ends = [end for end in range(len(packed)) if _is_whole(packed[:end])]
    assert ends == [len(gzip.compress(b"hello" * 100))]


def _is_whole(packed: bytes) -> bool:
    try:
        decompress_all(packed)
    except InvalidRequest:
        return False
    return True


def test_every_corrupt_byte_is_noticed() -> None:
    """Except those of the header with the time, the compressor and the system."""
    packed = gzip.compress(b"hello" * 100, mtime=0)
    for at in [*range(3), *range(10, len(packed))]:
        corrupt = bytearray(packed)
        corrupt[at] ^= 0xFF
        with pytest.raises(InvalidRequest):
            decompress_all(bytes(corrupt))


def test_no_more_than_the_limit_is_decompressed() -> None:
    gunzip = GzipDecoder(zlib.compressobj(9, wbits=31).compress(bytes(64 * MB)) + b"\0" * MB, MB)
    with pytest.raises(RequestTooLarge):
        gunzip.decompress()
    assert not gunzip.body and gunzip._position <= 64 * 1024


def test_blocks_without_output_are_read_in_steps() -> None:
    gunzip = GzipDecoder(gzip.compress(b"", 0)[:10] + b"\0\0\0\xff\xff" * MB, MB)
    for part in (1, 2):
        assert not gunzip.decompress(MB)
        assert not gunzip.body and part * MB < gunzip._position <= part * (MB + 64 * 1024)
