import io
import struct
import zlib

import pytest
from PIL import Image

from gateway.errors import InvalidRequest
from tests.unit.gateway.media.media_samples import data_url, image_bytes


async def refusal_message(media, data: bytes) -> str:
    with pytest.raises(InvalidRequest) as failure:
        await media.load_image(data_url(data, "image/png"), param="image_url.url")
    assert failure.value.param == "image_url.url"
    return failure.value.message


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif", "bmp"])
async def test_images_are_passed_on_unchanged(media, form):
    data = image_bytes(form.upper())
    image = await media.load_image(data_url(data), param="p")
    assert (image.data, image.media_type, image.width, image.height) == (data, f"image/{form}", 40, 30)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
async def test_the_first_frame_of_an_animation_counts(media, form):
    out = io.BytesIO()
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue", "green")]
    frames[0].save(out, form, save_all=True, append_images=frames[1:])
    image = await media.load_image(data_url(out.getvalue()), param="p")
    assert (image.width, image.height, image.media_type) == (20, 10, f"image/{form.lower()}")


async def test_an_exif_rotation_is_not_applied(media):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = await media.load_image(data_url(image_bytes("JPEG", exif=exif)), param="p")
    assert (image.width, image.height) == (40, 30)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
async def test_a_truncated_image_is_refused(media, form, share):
    data = image_bytes(form, (200, 200))
    assert "damaged or truncated" in await refusal_message(media, data[: max(40, int(len(data) * share))])


async def test_unsupported_formats_are_named(media):
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "TIFF")
    assert "PNG, JPEG, WebP, GIF or BMP), got a file of the type image/tiff" in await refusal_message(
        media, out.getvalue()
    )
    assert "expected an image" in await refusal_message(media, b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert "base64" not in await refusal_message(media, b"plain text")
    with pytest.raises(InvalidRequest, match="expected an http or https URL, or a data URL"):
        await media.load_image("aGVsbG8=", param="p")


async def test_images_of_too_many_pixels_are_refused_by_their_header(media, make_media):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )
    assert "50000000" in await refusal_message(media, bomb)
    small = make_media(picture_max_pixels=1000)
    assert "30 pixels; the limit is 1000" in await refusal_message(small, image_bytes())
    assert "larger than the limit of 500 bytes" in await refusal_message(make_media(media_max_bytes=500), image_bytes())


async def test_the_side_of_an_image_is_limited(media):
    """Shrinking it would take gigabytes, however few its pixels are."""
    assert "65536 pixels; the limit is 65535 per side" in await refusal_message(media, image_bytes("PNG", (1, 65_536)))
    image = await media.load_image(data_url(image_bytes("PNG", (65_535, 1))), param="p")
    assert image.width == 65_535
