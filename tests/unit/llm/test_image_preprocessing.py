"""Pictures on their way into a prompt, held against transformers' own processors."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from backends.llm.vision import encoded_image as picture_module
from backends.llm.vision.encoded_image import EncodedImage
from backends.llm.vision.tiles import plan_tiles, split_into_tiles
from backends.serving.errors import InvalidValue
from tests.unit.llm.image_files import base64_image, noise_image, vision_config


def shown(image, format="PNG", **options):
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
    ours = vision_config(split=split)
    theirs = Processor(
        size={"longest_edge": 256},
        max_image_size={"longest_edge": 64},
        image_mean=ours.mean,
        image_std=ours.std,
        do_image_splitting=split,
        resample=1,
        rescale_factor=1 / 255,
    )
    image = noise_image(*size)
    found = theirs([[image]], return_tensors="np", return_row_col_info=True)
    how = plan_tiles(image.size, ours)
    tiles = np.stack(list(split_into_tiles(image, how, ours)))
    assert [[how.rows]] == found["rows"] and [[how.columns]] == found["cols"]
    assert tiles.dtype == np.float32 and len(tiles) == how.num_tiles
    np.testing.assert_array_equal(tiles, found["pixel_values"][0])
    assert found["pixel_attention_mask"].all(), "a tile with padding, which the exported encoder does not know"


def test_no_side_grows_beyond_the_limit():
    ours = vision_config(longest_edge=500, largest_side=100)
    assert plan_tiles((800, 600), ours).scaled_size == (100, 75)
    assert plan_tiles((600, 800), ours).scaled_size == (75, 100)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
def test_pictures_are_turned_as_their_camera_was_held(orientation, format):
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = base64_image(noise_image(30, 20), format, exif=tags)
    taken = EncodedImage(file, 1)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(base64.b64decode(file)))).convert("RGB")
    assert taken.size == upright.size == ((20, 30) if orientation > 4 else (30, 20))
    np.testing.assert_array_equal(np.asarray(taken.rgb()), np.asarray(upright))


def test_transparent_parts_are_white():
    image = noise_image(8, 8).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 32).reshape(8, 8)))
    found = shown(image)
    assert (found[:4] == 255).all()
    np.testing.assert_array_equal(found[4:], np.asarray(image.convert("RGB"))[4:])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert shown(palette, transparency=0).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_shades_of_grey_of_any_depth():
    grey = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    assert shown(grey).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    deep = Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16))
    assert shown(deep).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    bits = Image.fromarray(np.array([[True, False]]))
    assert shown(bits).tolist() == [[[255] * 3, [0] * 3]]


def test_ink_becomes_light():
    found = shown(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert found.shape == (8, 8, 3) and (found[..., 0] > 240).all() and (found[..., 1:] < 15).all()


def test_of_what_moves_the_first_frame_is_shown():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    found = shown(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"%%%", "Picture 3 is not base64."),
        (b"", "Picture 3 is none of PNG"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "Picture 3 is none of PNG"),
        (base64_image(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "cannot be decoded"),
        (base64.b64encode(base64.b64decode(base64_image(noise_image(90, 90)))[:3000]), "cannot be decoded"),
    ],
)
def test_what_cannot_be_shown_is_refused(file, message):
    with pytest.raises(InvalidValue) as refusal:
        EncodedImage(file, 3).rgb()
    assert message in str(refusal.value) and refusal.value.param == "image"


def test_what_is_too_large_is_refused_before_it_is_decoded(monkeypatch):
    small = base64_image(Image.new("1", (3000, 3000)))
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 3000 * 3000)
    assert EncodedImage(small, 1).size == (3000, 3000)
    monkeypatch.setattr(picture_module, "_sizes", {})  # what was looked at once is known
    monkeypatch.setattr(picture_module, "MAX_PIXELS", 3000 * 3000 - 1)
    with pytest.raises(InvalidValue, match="3000 x 3000 pixels"):
        EncodedImage(small, 1)
    monkeypatch.setattr(picture_module, "MAX_BYTES", 10)
    with pytest.raises(InvalidValue, match="at most 10"):
        EncodedImage(small, 1)
