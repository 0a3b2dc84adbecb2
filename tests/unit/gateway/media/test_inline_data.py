"""Data URLs and base64: what they come to, and what they cost where they are made to cost much."""

import asyncio
import base64
import random
import time
import tracemalloc
from urllib.parse import quote, unquote_to_bytes

import pytest

from gateway.errors import InvalidRequest
from gateway.media import inline_data
from gateway.media.decoders import percent_encoding
from gateway.media.invalid_media import InvalidMedia

LIMIT = 20 * 2**20
DATA = random.Random(5).randbytes(3000)


def from_base64(text: str, limit: int = LIMIT) -> bytes:
    what = inline_data.parse_base64(text, limit=limit)
    if what.has_percent_escapes():
        return percent_encoding.decode_percent_encoding(what.to_bytes(), base64=True)
    return asyncio.run(inline_data.decode(what, limit=limit))


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
    assert from_base64(text).startswith(DATA)


@pytest.mark.parametrize("rest", range(4))
@pytest.mark.parametrize("every", [1, 3, 76, 100_000])
@pytest.mark.parametrize("space", ["", "\n", "\r\n", " \t"])
@pytest.mark.parametrize("alphabet", ["+/", "-_"])
def test_common_base64_spellings_are_read(rest: int, every: int, space: str, alphabet: str) -> None:
    """Pieces end anywhere among the lines."""
    data = random.Random(rest).randbytes((300_000 if every > 9 else 3000) + rest)
    text = base64.b64encode(data, alphabet.encode()).decode()
    text = space.join(text[at : at + every] for at in range(0, len(text), every))
    assert from_base64(text) == from_base64(text.rstrip("=")) == from_base64(text + space) == data


@pytest.mark.parametrize(
    "text",
    ["%", "AAAA%", "AA%zzAA", "%%%%", "AA%C3%A9A", "AAéA%2B", "%3D%3DAAAA", "AA%ud800", "AAéA", "A", "AAAAA", "AA=A",
     "AA==AAAA", "=AAA", "A A A A A", "AA\ud800A", "AAAA.", "A" * 262_143 + "=A", "A" * 262_142 + "==" + "AAAA"],
)  # fmt: skip
def test_invalid_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidMedia, match="not valid base64"):
        from_base64(text)


def test_escapes_are_read_as_the_standard_library_reads_them() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        text = bytes(rng.choice(b"%%=A4F\n\r \t.z_-\xe9") for _ in range(rng.randrange(30)))
        assert inline_data.percent_decode(text) == unquote_to_bytes(text)


def test_sizes_are_checked_before_decoding() -> None:
    with pytest.raises(InvalidMedia, match="larger than the limit of 3000 bytes"):
        inline_data.parse_base64("A" * 5000, limit=3000)
    with pytest.raises(InvalidMedia, match="larger"):
        inline_data.parse_data_url("data:," + "%41" * 3001, limit=3000)
    with pytest.raises(InvalidMedia, match="larger"):
        from_base64("AAAA" * 1001, limit=3000)
    assert from_base64("AAAA" * 1000, limit=3000) == bytes(3000)


@pytest.mark.usefixtures("frozen_heap")
def test_the_header_of_a_data_url_is_bounded() -> None:
    what, declared = inline_data.parse_data_url("data:Image/PNG;charset=x; Base64 ,QUFB", limit=LIMIT)
    assert (what.base64, what.to_bytes(), declared) == (True, b"QUFB", "image/png")
    assert inline_data.parse_data_url("data:,a", limit=LIMIT)[1] == "text/plain"
    for url in ("data:" + ";" * 30_000_000, "data:" + ";" * 2000 + ",x", "data:" + "x" * 1100 + ",x"):
        began = time.thread_time()
        with pytest.raises(InvalidMedia, match="before its comma is longer than 1024 characters"):
            inline_data.parse_data_url(url, limit=LIMIT)
        assert time.thread_time() - began < 0.05
    with pytest.raises(InvalidMedia, match="has no comma"):
        inline_data.parse_data_url("data:text/plain", limit=LIMIT)


HEAVY = {
    "base64": "data:;base64," + "QUFB" * 6_900_000,
    "spaced": "data:;base64," + "A " * 13_000_000,
    "escapes of base64": "data:;base64," + "%41" * 9_000_000,
    "escapes": "data:," + "%41" * 10_000_000,
    "text": "data:," + "A" * 20_000_000,
    "no escapes": "data:," + "%" * 30_000_000,
}


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("name", HEAVY)
async def test_decoding_does_not_block_the_event_loop(make_media, name: str) -> None:
    """Decoding of base64 yields to the event loop, and slow steps run in another process."""
    media, url = make_media(media_max_bytes=30_000_000), HEAVY[name]
    await media.load_document("data:,warm", param="p")
    tracemalloc.start()
    loading = asyncio.create_task(media.load_image(url, param="p"))
    longest = 0.0
    while not loading.done():
        began = time.thread_time()
        await asyncio.sleep(0.001)
        longest = max(longest, time.thread_time() - began)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with pytest.raises(InvalidRequest, match="expected an image"):
        await loading
    assert longest < 0.1
    assert most < 128 * 2**20, "besides the text itself"
