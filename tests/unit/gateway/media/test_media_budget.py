"""Limits that all references of one request share: time, bytes, pixels and memory."""

import asyncio
import time

import pytest

from gateway.dialects.openai.wire.message_parser import MessageParser
from gateway.dialects.openai.wire.messages import Message
from gateway.errors import InvalidRequest, Overloaded
from gateway.http.media_references import MediaReferences
from gateway.observability.telemetry import Metrics, Trace
from gateway.operations.chat import ImagePart, TextPart
from tests.unit.gateway.media.media_samples import data_url, image_bytes


def message_with(*urls: str) -> list[Message]:
    parts = [{"type": "image_url", "image_url": url} for url in urls]
    return [Message.model_validate({"role": "user", "content": [{"type": "text", "text": "?"}, *parts]})]


def parser_for(media) -> MessageParser:
    trace = Trace(Metrics(), "r", caller="caller")
    return MessageParser(MediaReferences(media, trace), supports_images=True, max_characters=10_000)


def slow_image(site, path: str, seconds: float) -> str:
    """A picture whose server takes its time."""
    data = image_bytes()

    async def answer(out):
        await asyncio.sleep(seconds)
        out.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

    return site.script(path, answer)


async def test_references_are_fetched_concurrently_and_stay_in_order(site, media):
    slow = [slow_image(site, f"/{i}", 0.3) for i in range(4)]
    inline = data_url(image_bytes("JPEG"), "image/jpeg")
    (turn,) = await parser_for(media).parse(message_with(slow[0], inline, *slow[1:]))
    assert site.most_open >= 2
    kinds = [part.data[:3] if isinstance(part, ImagePart) else part for part in turn.content]
    assert kinds == [TextPart("?"), b"\x89PN", b"\xff\xd8\xff", *[b"\x89PN"] * 3]


async def test_one_request_does_not_take_every_worker(site, media):
    most = 0
    data = image_bytes()

    async def answer(out):
        nonlocal most
        most = max(most, site.num_open)
        await asyncio.sleep(0.1)
        out.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

    await parser_for(media).parse(message_with(*[site.script("/", answer)] * 12))
    assert most == 4


async def test_references_of_a_request_share_a_limit_of_bytes(site, make_media):
    data = image_bytes(size=(100, 100))
    url = site.page("/a", data)
    media = make_media(media_allow_private=True, media_request_max_bytes=3 * len(data))
    (turn,) = await parser_for(media).parse(message_with(url, data_url(data), url))
    assert len(turn.content) == 4
    # A request has them for itself.
    (turn,) = await parser_for(media).parse(message_with(url, url, url))
    for urls in ([url] * 4, [data_url(data)] * 4, [url, url, url, data_url(data)]):
        with pytest.raises(InvalidRequest, match=f"exceed the limit of {3 * len(data)} bytes") as raised:
            await parser_for(media).parse(message_with(*urls))
        assert raised.value.param is not None and raised.value.param.startswith("messages[0].content[")


async def test_bytes_are_counted_as_they_arrive(site, make_media):
    """Not when the last of a file is there."""
    sent = 0

    async def pour(out):
        nonlocal sent
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            out.write(bytes(65536))
            await out.drain()
            sent += 65536

    media = make_media(media_allow_private=True, media_request_max_bytes=1_000_000)
    with pytest.raises(InvalidRequest, match="exceed the limit of 1000000 bytes"):
        await parser_for(media).parse(message_with(site.script("/", pour)))
    assert sent < 20_000_000


async def test_references_of_a_request_share_a_timeout(site, make_media):
    media = make_media(media_allow_private=True, media_request_timeout=0.4)
    hung = [slow_image(site, f"/{i}", 120) for i in range(6)]
    with pytest.raises(InvalidRequest, match=r"within 0\.4 seconds") as raised:
        await parser_for(media).parse(message_with(*hung))
    assert raised.value.param == "messages"
    assert not media._active_tasks
    # The failure of one is that of all, at once.
    broken = site.page("/broken", b"", status="404 Not Found")
    media = make_media(media_allow_private=True)
    started = time.monotonic()
    with pytest.raises(InvalidRequest, match="status 404") as raised:
        await parser_for(media).parse(message_with(hung[0], hung[1], broken))
    assert raised.value.param == "messages[0].content[3].image_url"
    assert time.monotonic() - started < 30 and not media._active_tasks


async def test_images_of_a_request_share_a_limit_of_pixels(make_media):
    media = make_media(picture_request_max_pixels=3 * 40 * 30)
    url = data_url(image_bytes())
    assert len((await parser_for(media).parse(message_with(*[url] * 3)))[0].content) == 4
    with pytest.raises(InvalidRequest, match="the images of this request exceed the limit of 3600 pixels"):
        await parser_for(media).parse(message_with(*[url] * 4))


async def test_requests_share_the_memory_for_files(site, make_media):
    """A caller whose files wait does not take it from others, and gets it again when they are read."""
    media = make_media(media_allow_private=True, media_held_bytes=100_000)
    first = media.new_budget("one")
    first.acquire(50_000)
    for _ in range(2):
        with pytest.raises(Overloaded) as raised, media.new_budget("one") as second:
            second.acquire(1)
        assert raised.value.retry_after
    with media.new_budget("another") as another:
        another.acquire(25_000)
    with first:
        pass
    url = data_url(image_bytes(size=(100, 100)))
    for _ in range(5):
        await parser_for(media).parse(message_with(url))


async def test_waiting_for_a_worker_is_an_overload(make_media):
    """The time of a request is over while others have the places: that is a 503, and no 400."""
    media = make_media(media_request_timeout=0.5, picture_workers=1)
    await media._image_pool._slots.acquire("another", seconds=1)
    with pytest.raises(Overloaded) as raised:
        await parser_for(media).parse(message_with(data_url(image_bytes())))
    assert raised.value.retry_after
    media._image_pool._slots.release("another")
    media.request_timeout = 60
    await parser_for(media).parse(message_with(data_url(image_bytes())))


async def test_fetched_bytes_count_towards_the_request(site, media):
    """Packing four images of 16 MiB blocked the event loop for 220 ms while only the size of the body counted."""
    for size, large in (((40, 30), False), ((1000, 800), True)):
        data = image_bytes("BMP", size)

        async def answer(out, data=data):
            out.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

        asked = Trace(Metrics(), "r", caller="caller")
        read = MessageParser(MediaReferences(media, asked), supports_images=True, max_characters=10_000)
        await read.parse(message_with(site.script("/", answer)))
        assert asked.is_large is large
