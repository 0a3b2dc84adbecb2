"""Preprocessing of images, compared with transformers' own processors."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from backends.llm.vision import encoded_image as encoded_image_module
from backends.llm.vision.encoded_image import EncodedImage
from backends.llm.vision.tiles import plan_tiles, split_into_tiles
from backends.serving.errors import InvalidValue
from tests.unit.llm.image_files import base64_image, noise_image, vision_config


def decoded_pixels(image, format="PNG", **options):
    """Save an image, and return its pixels as the backend decodes them, uint8[height, width, 3]."""
    return np.asarray(EncodedImage(base64_image(image, format, **options), 1).rgb())


@pytest.mark.parametrize("family", ["smolvlm", "idefics3"])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(
    "size",
    [(64, 64), (200, 150), (150, 200), (1, 1), (3, 700), (700, 3), (257, 255), (1000, 999), (511, 65), (40, 640)],
)
def test_tiles_are_those_of_transformers(family, split, size):
    if family == "smolvlm":
        from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil as Processor
    else:
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil as Processor
    config = vision_config(split=split)
    processor = Processor(
        size={"longest_edge": 256},
        max_image_size={"longest_edge": 64},
        image_mean=config.mean,
        image_std=config.std,
        do_image_splitting=split,
        resample=1,
        rescale_factor=1 / 255,
    )
    image = noise_image(*size)
    expected = processor([[image]], return_tensors="np", return_row_col_info=True)
    layout = plan_tiles(image.size, config)
    tiles = np.stack(list(split_into_tiles(image, layout, config)))
    assert [[layout.rows]] == expected["rows"] and [[layout.columns]] == expected["cols"]
    assert tiles.dtype == np.float32 and len(tiles) == layout.num_tiles
    np.testing.assert_array_equal(tiles, expected["pixel_values"][0])
    assert expected["pixel_attention_mask"].all(), "a tile with padding, which the exported encoder does not know"


def test_no_side_grows_beyond_the_limit():
    config = vision_config(longest_edge=500, largest_side=100)
    assert plan_tiles((800, 600), config).scaled_size == (100, 75)
    assert plan_tiles((600, 800), config).scaled_size == (75, 100)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
def test_images_are_turned_upright_by_their_exif_orientation(orientation, format):
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = base64_image(noise_image(30, 20), format, exif=tags)
    image = EncodedImage(file, 1)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(base64.b64decode(file)))).convert("RGB")
    assert image.size == upright.size == ((20, 30) if orientation > 4 else (30, 20))
    np.testing.assert_array_equal(np.asarray(image.rgb()), np.asarray(upright))


def test_transparent_parts_become_white():
    image = noise_image(8, 8).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 32).reshape(8, 8)))
    pixels = decoded_pixels(image)
    assert (pixels[:4] == 255).all()
    np.testing.assert_array_equal(pixels[4:], np.asarray(image.convert("RGB"))[4:])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert decoded_pixels(palette, transparency=0).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_grey_images_of_any_depth_are_scaled_to_bytes():
    grey = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    assert decoded_pixels(grey).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    grey_16_bit = Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16))
    assert decoded_pixels(grey_16_bit).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    bilevel = Image.fromarray(np.array([[True, False]]))
    assert decoded_pixels(bilevel).tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_becomes_rgb():
    pixels = decoded_pixels(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert pixels.shape == (8, 8, 3) and (pixels[..., 0] > 240).all() and (pixels[..., 1:] < 15).all()


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    pixels = decoded_pixels(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"%%%", "Image 3 is not base64."),
        (b"", "Image 3 is none of PNG"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "Image 3 is none of PNG"),
        (base64_image(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "cannot be decoded"),
        (base64.b64encode(base64.b64decode(base64_image(noise_image(90, 90)))[:3000]), "cannot be decoded"),
    ],
)
def test_files_that_cannot_be_decoded_are_refused(file, message):
    with pytest.raises(InvalidValue) as refusal:
        EncodedImage(file, 3).rgb()
    assert message in str(refusal.value) and refusal.value.param == "image"


def test_images_that_are_too_large_are_refused_before_decoding(monkeypatch):
    small = base64_image(Image.new("1", (3000, 3000)))
    monkeypatch.setattr(encoded_image_module, "MAX_PIXELS", 3000 * 3000)
    assert EncodedImage(small, 1).size == (3000, 3000)
    monkeypatch.setattr(encoded_image_module, "_sizes", {})  # it holds the sizes of checked images
    monkeypatch.setattr(encoded_image_module, "MAX_PIXELS", 3000 * 3000 - 1)
    with pytest.raises(InvalidValue, match="3000 x 3000 pixels"):
        EncodedImage(small, 1)
    monkeypatch.setattr(encoded_image_module, "MAX_BYTES", 10)
    with pytest.raises(InvalidValue, match="at most 10"):
        EncodedImage(small, 1)
