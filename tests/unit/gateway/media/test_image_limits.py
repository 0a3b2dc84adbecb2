"""Pictures that are made to cost much, and what they cost others."""

import asyncio
import io
import struct
import zlib

import pytest
from PIL import Image

from gateway.errors import InvalidRequest, Overloaded
from gateway.media.decoders import scans
from gateway.media.invalid_media import InvalidMedia
from tests.unit.gateway.media.media_samples import data_url, image_bytes


def progressive(scans: int, side: int = 64) -> bytes:
    """A JPEG whose last scan comes again and again, as often as is asked for."""
    out = io.BytesIO()
    Image.new("L", (side, side), 128).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    again = data[data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda")) : -2]
    return data[:-2] + again * (scans - data.count(b"\xff\xda")) + data[-2:]


def png(*chunks: tuple[bytes, bytes], side: int = 8) -> bytes:
    rows = zlib.compress((b"\0" + b"\1\2\3" * side) * side)
    whole = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in whole
    )


def webp(side: int = 7000) -> bytes:
    """Forty-nine million pixels in some dozens of bytes."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "WEBP", lossless=True, quality=0, method=0)
    return out.getvalue()


@pytest.fixture(scope="session")
def large() -> str:
    data = webp()
    assert len(data) < 3000
    return data_url(data)


async def load_image(media, data: bytes, **options):
    return await media.load_image(data_url(data), param="p", **options)


async def test_scans_of_a_jpeg_are_limited(media):
    assert (await load_image(media, progressive(100))).width == 64
    for count in (101, 6000):
        with pytest.raises(InvalidRequest, match="more scans than the limit of 100"):
            await load_image(media, progressive(count))


@pytest.mark.parametrize("quality", [10, 75, 100])
@pytest.mark.parametrize("progression", [False, True])
def test_jpegs_of_common_encoders_have_few_scans(quality: int, progression: bool) -> None:
    out = io.BytesIO()
    noise = Image.effect_noise((300, 200), 90).convert("RGB")
    thumbnail = io.BytesIO()
    noise.resize((30, 20)).save(thumbnail, "JPEG", progressive=True)
    exif = Image.Exif()
    exif[0x010E] = "x" * 40_000
    noise.save(
        out, "JPEG", quality=quality, progressive=progression, exif=exif, comment=thumbnail.getvalue() * 20,
        icc_profile=b"\xff\xda\0\2" * 60_000, restart_marker_blocks=1,
    )  # fmt: skip
    data = out.getvalue()
    assert data.count(b"\xff\xda") > 100, "of which those of the picture itself count"
    scans.check(data)
    scans.check(data[: len(data) // 2])
    scans.check(image_bytes("PNG") + b"\xff\xda" * 1000)


def test_too_many_segments_of_a_jpeg_are_refused() -> None:
    data = progressive(10)
    scans.check(data[:2] + b"\xff\xfe\0\2" * 9900 + data[2:])
    with pytest.raises(InvalidMedia, match="more segments than the limit of 10000"):
        scans.check(data[:2] + b"\xff\xfe\0\2" * 5_000_000 + data[2:])
    scans.check(b"\xff\xd8")
    scans.check(b"\xff\xd8" + b"\xff" * 20_000_000)


@pytest.mark.parametrize(
    ("data", "readable"),
    [
        (png((b"zTXt", b"k\0\0" + zlib.compress(bytes(2**28), 9))), None),
        (png((b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2**28), 9))), None),
        (png((b"iCCP", b"k\0\0" + zlib.compress(bytes(2**28), 9))), None),
        (png(*[(b"tEXt", b"k\0" + b"x" * 60_000)] * 200), None),
        (png(*[(b"tEXt", b"k\0x")] * 100_000), None),
        (png()[:-30], False),
        (png(), True),
    ],
    ids=["text", "international", "profile", "texts", "many", "cut", "plain"],
)
async def test_a_png_is_read_or_refused(media, data, readable):
    """Pillow may read or refuse them. Either is quick, and uses little memory of the gateway."""
    try:
        image = await load_image(media, data)
    except InvalidRequest:
        assert readable is not True
    else:
        assert readable is not False and image.width == 8


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
async def test_only_one_frame_is_decoded(media, form):
    out = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (n % 256, n // 256, 0)) for n in range(1000)]
    frames[0].save(out, form, save_all=True, append_images=frames[1:])
    assert (await load_image(media, out.getvalue())).width == 64


async def test_a_canvas_larger_than_its_frame_is_refused(media):
    data = bytearray(image_bytes("GIF"))
    data[6:10] = struct.pack("<HH", 65_535, 65_535)
    with pytest.raises(InvalidRequest, match="50000000"):
        await load_image(media, bytes(data))


async def test_an_image_that_takes_too_long_is_refused(make_media, large):
    media = make_media(picture_timeout=0.1)
    media._image_pool._wall_timeout = 10.0
    with pytest.raises(InvalidRequest, match=r"the image could not be decoded within 0\.1 seconds"):
        await media.load_image(large, param="p")
    media = make_media(document_memory_bytes=2**28)
    with pytest.raises(InvalidRequest, match=r"memory|damaged"):
        await media.load_image(large, param="p")


async def test_slow_images_do_not_block_fast_ones(make_media, large):
    """Twenty requests of sixteen such pictures each: another caller's picture waits for none of them."""
    media = make_media()
    small = image_bytes()

    async def attack():
        with media.new_budget("attacker") as budget:
            return await asyncio.gather(
                *(media.load_image(large, param="p", budget=budget) for _ in range(16)), return_exceptions=True
            )

    attackers = [asyncio.create_task(attack()) for _ in range(20)]
    await asyncio.sleep(0.2)
    for _ in range(10):
        with media.new_budget("honest") as budget:
            assert (await load_image(media, small, budget=budget)).width == 40
        assert media._image_pool._slots._held["attacker"] <= 2
    assert not any(attacker.done() for attacker in attackers)
    for attacker in attackers:
        attacker.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)


async def test_an_image_that_finds_no_worker_is_an_overload(make_media):
    media = make_media(picture_workers=1, picture_timeout=0.1)
    await media._image_pool._slots.acquire("another", seconds=1)
    with pytest.raises(Overloaded) as raised:
        await load_image(media, image_bytes())
    assert raised.value.retry_after
