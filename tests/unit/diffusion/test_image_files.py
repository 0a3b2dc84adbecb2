"""Decoding and encoding of image files, which Pillow writes for the tests."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from backends.diffusion.images import composite, pixels_to_tensor, read_mask, resize_mask, tensor_to_pixels
from backends.serving.errors import InvalidValue
from backends.serving.images import OUTPUT_FORMATS, check_encodable, encode_image, read_image


def photo(width=37, height=23, seed=1):
    """Make an image of smooth colours with one distinct corner, so that rotations and lossy formats can be checked."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.dstack([across, down, np.full_like(across, 40 * seed)]).round().astype(np.uint8)
    pixels[: height // 3, : width // 3] = (250, 10, 120)
    return pixels


def saved(image, output_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, output_format, **options)
    return file.getvalue()


def refusal(data, name="image"):
    """Return the message with which a file is refused."""
    with pytest.raises(InvalidValue) as caught:
        read_image(data, name)
    assert caught.value.param == name
    return str(caught.value)


@pytest.mark.parametrize(
    ("output_format", "tolerance"), [("PNG", 0), ("JPEG", 40), ("WEBP", 60), ("GIF", 60), ("BMP", 0)]
)
def test_formats_are_read(output_format, tolerance):
    pixels = photo()
    decoded = read_image(saved(Image.fromarray(pixels), output_format))
    assert decoded.size == (37, 23)
    assert decoded.transparency is None
    assert decoded.pixels.dtype == np.uint8
    difference = np.abs(decoded.pixels.astype(int) - pixels)
    assert difference.max() <= 4 * tolerance
    assert difference.mean() <= tolerance / 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("output_format", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_upright(output_format, orientation):
    # The transposition that turns an image with each EXIF orientation upright.
    transpose_back = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    pixels = photo(40, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(transpose_back[orientation](pixels)))
    options = {"lossless": True} if output_format == "WEBP" else {"quality": 100} if output_format == "JPEG" else {}
    decoded = read_image(saved(stored, output_format, exif=exif, **options))
    assert decoded.size == (40, 24)
    assert np.abs(decoded.pixels.astype(int) - pixels).mean() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_leaves_the_image_unchanged():
    data = saved(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01\x00")
    assert read_image(data).size == (37, 23)


def test_grey_of_sixteen_bits_keeps_its_scale():
    grey = (np.arange(12 * 20).reshape(12, 20) * 270).astype(np.uint16)
    decoded = read_image(saved(Image.fromarray(grey)))
    assert np.array_equal(decoded.pixels[..., 0], grey // 257)
    assert np.array_equal(decoded.pixels[..., 0], decoded.pixels[..., 2])


def png_of_sixteen_bits(values):
    """Write uint16[height, width, 3] as a PNG, which Pillow cannot."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_sixteen_bits_are_read():
    values = photo().astype(np.uint16) * 257
    assert np.array_equal(read_image(png_of_sixteen_bits(values)).pixels, photo())


def test_cmyk_is_read_as_pillow_reads_it():
    data = saved(Image.fromarray(photo()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read_image(data).pixels.astype(int) - photo()).mean() < 10


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA"])
def test_other_modes_are_read(mode):
    image = Image.fromarray(photo()).convert(mode if mode != "PA" else "P")
    decoded = read_image(saved(image))
    assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))
    assert decoded.transparency is None


def test_transparency_is_decoded():
    alpha = np.full((23, 37), 255, np.uint8)
    alpha[:, :10], alpha[:, 10:12] = 0, 51
    decoded = read_image(saved(Image.fromarray(np.dstack([photo(), alpha]))))
    assert np.array_equal(decoded.pixels, photo())
    assert decoded.transparency is not None
    np.testing.assert_allclose(decoded.transparency[0, [0, 9, 10, 12]], [1, 1, 0.8, 0], atol=1e-6)


def test_transparency_of_palettes_is_read():
    image = Image.new("P", (4, 2))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    decoded = read_image(saved(image, "GIF", transparency=1))
    assert decoded.transparency is not None
    assert decoded.transparency.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    for output_format in ("GIF", "PNG", "WEBP"):
        data = saved(frames[0], output_format, save_all=True, append_images=frames[1:])
        red = read_image(data).pixels.mean((0, 1))
        assert red[0] > 240
        assert red[2] < 15


@pytest.mark.parametrize("data", [b"", b"GIF", b"not an image", b"<svg/>", saved(Image.new("RGB", (4, 4)), "TIFF")])
def test_files_of_other_formats_are_refused(data):
    assert refusal(data, "mask") == "[invalid_value:mask] This is no PNG, JPEG, WEBP, GIF or BMP."


@pytest.mark.parametrize("output_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_truncated_files_are_refused(output_format):
    random = np.random.default_rng(3).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    data = saved(Image.fromarray(random), output_format)
    message = refusal(data[: len(data) // 2])
    assert message.startswith("[invalid_value:image] This image cannot be ")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((10_000, 5_001), "The image has 10000 x 5001 pixels; at most 50000000 are accepted."),
        ((60_000, 60_000), "The image has more than 50000000 pixels, the most that are accepted."),
        ((1, 65_536), "The image has 1 x 65536 pixels; at most 65535 per side are accepted."),
        ((49_999_999, 1), "The image has 49999999 x 1 pixels; at most 65535 per side are accepted."),
    ],
)
def test_an_image_that_is_too_large_is_refused_before_decoding(size, message):
    # A header with this size, and no pixels after it.
    data = bytearray(saved(Image.new("1", (16, 16))))
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert refusal(bytes(data)).endswith(message)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_corrupt_file_is_decoded_or_refused():
    random = np.random.default_rng(8)
    image = Image.fromarray(photo())
    palette = image.convert("P")
    files = [saved(image, output_format) for output_format in ("PNG", "JPEG", "WEBP", "GIF")]
    files += [saved(palette, "PNG", transparency=3), saved(palette, "GIF", transparency=3)]
    outcomes = set()
    for file in files * 40:
        broken = np.frombuffer(file, np.uint8).copy()
        places = random.integers(0, random.choice([40, len(broken)]), random.integers(1, 6))
        broken[places] = random.integers(0, 256, len(places))
        try:
            assert read_image(broken.tobytes()).pixels.shape[2] == 3
            outcomes.add("read")
        except InvalidValue:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_transparent_pixels_of_a_mask_may_change():
    alpha = np.full((23, 37), 255, np.uint8)
    alpha[5:9, 4:20] = 0
    mask = read_mask(saved(Image.fromarray(np.dstack([photo(), alpha]))), (37, 23))
    assert mask.dtype == np.float32
    assert np.array_equal(mask, (alpha == 0).astype(np.float32))


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "RGBA"])
def test_white_pixels_of_a_mask_without_transparency_may_change(mode):
    white = np.zeros((23, 37), np.uint8)
    white[5:9, 4:20] = 255
    mask = read_mask(saved(Image.fromarray(white).convert(mode)), (37, 23))
    assert np.array_equal(mask, white / np.float32(255))


def test_a_mask_of_sixteen_bits_keeps_its_scale():
    grey = np.asarray([[0, 65535, 32896]], np.uint16)
    np.testing.assert_allclose(read_mask(saved(Image.fromarray(grey)), (3, 1)), [[0, 1, 128 / 255]], atol=1e-6)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InvalidValue, match="37 x 23 pixels, and its image 23 x 37") as caught:
        read_mask(saved(Image.fromarray(photo())), (23, 37))
    assert caught.value.param == "mask"


def test_resizing_and_scaling_are_those_of_diffusers():
    decoded = read_image(saved(Image.fromarray(photo(50, 30)))).resize((64, 40))
    assert decoded.size == (64, 40)
    expected = VaeImageProcessor(vae_scale_factor=8).preprocess(Image.fromarray(photo(50, 30)), height=40, width=64)
    np.testing.assert_allclose(pixels_to_tensor(decoded.pixels), expected[0].numpy(), atol=1e-6)


def test_pixels_are_rounded_as_in_diffusers():
    image = np.random.default_rng(2).normal(scale=0.8, size=(3, 16, 24)).astype(np.float32)
    (expected,) = VaeImageProcessor().postprocess(torch.from_numpy(image)[None], output_type="pil")
    assert np.array_equal(tensor_to_pixels(image), np.asarray(expected))
    assert np.array_equal(tensor_to_pixels(pixels_to_tensor(photo())), photo())


def test_transparent_pixels_do_not_bleed_when_resizing():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 200
    alpha = np.where(np.arange(32) < 16, 0, 255).astype(np.uint8) * np.ones((32, 1), np.uint8)
    small = read_image(saved(Image.fromarray(np.dstack([pixels, alpha])))).resize((11, 11))
    assert small.transparency is not None
    visible = small.transparency < 0.9
    assert np.any(visible)
    assert small.pixels[visible].min() >= 198


def test_shrinking_a_mask_keeps_every_hole():
    mask = np.zeros((23, 37), np.float32)
    for row, column in np.ndindex(mask.shape):
        hole = np.zeros_like(mask)
        hole[row, column] = 1
        assert (resize_mask(hole, (5, 4)) == 1).sum() == 1
    mask[:6, :8], mask[22, 36] = 0.5, 0.25
    assert resize_mask(mask, (2, 2)).tolist() == [[0.5, 0], [0, 0.25]]
    assert resize_mask(mask, (37, 23)) is mask


def test_growing_a_mask_keeps_its_shape():
    mask = np.array([[1, 0, 0], [0, 0, 0.5]], np.float32)
    assert np.array_equal(resize_mask(mask, (6, 4)), mask.repeat(2, 0).repeat(2, 1))


def test_unmasked_pixels_are_unchanged():
    generated, original = photo(seed=5), photo(seed=1)
    mask = np.zeros((23, 37), np.float32)
    mask[5:9, 4:20], mask[9, 4:20] = 1, 0.5
    combined = composite(generated, original, mask)
    assert np.array_equal(combined[mask == 0], original[mask == 0])
    assert np.array_equal(combined[mask == 1], generated[mask == 1])
    assert combined[9, 4, 2] == (40 * 5 + 40) // 2


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
@pytest.mark.parametrize("quality", [None, 0, 50, 100])
def test_files_are_written_in_each_format_and_quality(output_format, quality):
    data = encode_image(photo(), output_format, quality)
    assert Image.open(io.BytesIO(data)).format == output_format.upper()
    difference = np.abs(read_image(data).pixels.astype(int) - photo())
    assert difference.mean() < (25 if quality == 0 else 8)
    if output_format == "png":
        assert difference.max() == 0


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_higher_quality_makes_larger_files(output_format):
    random = np.random.default_rng(3).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    sizes = [len(encode_image(random, output_format, quality)) for quality in (0, 30, 60, 100)]
    assert sizes == sorted(set(sizes))


def progressive_jpeg(scans: int) -> bytes:
    """Make a progressive JPEG whose last scan is repeated."""
    data = saved(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    again = data[data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda")) : -2]
    return data[:-2] + again * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_with_thousands_of_scans_is_not_decoded():
    assert read_image(progressive_jpeg(100)).size == (64, 64)
    for count in (101, 6000):
        assert "more than the 100 scans" in refusal(progressive_jpeg(count))


@pytest.mark.parametrize(("output_format", "longest"), [("webp", 16_383), ("jpeg", 65_500)])
def test_a_picture_that_is_too_long_for_its_format_is_refused(output_format, longest):
    """Pillow refuses it only when everything is done."""
    encode_image(np.zeros((1, longest, 3), np.uint8), output_format)
    check_encodable((longest, 1), output_format)
    with pytest.raises(InvalidValue, match="ask for png"):
        check_encodable((1, longest + 1), output_format)
    check_encodable((1, longest + 1), "png")
