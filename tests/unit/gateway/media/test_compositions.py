"""Pictures made of other pictures."""

import io
import random

import pytest
from PIL import Image

from gateway.media.decoders import compositions
from gateway.media.invalid_media import InvalidMedia


def noise(size: tuple[int, int], seed: int = 1) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))


def compose(kind: str, *inputs: Image.Image, size: tuple[int, int] = (0, 0), **fields) -> Image.Image:
    files = []
    for picture in inputs:
        file = io.BytesIO()
        picture.save(file, "PNG")
        files.append(file.getvalue())
    task = {
        "kind": kind,
        "sizes": [len(file) for file in files],
        "media_types": ["image/png"] * len(files),
        "max_pixels": 10_000,
        "width": size[0],
        "height": size[1],
        **fields,
    }
    return Image.open(io.BytesIO(compositions.compose(b"".join(files), task)))


def test_a_grid_has_the_pictures_in_reading_order() -> None:
    inputs = [noise((8, 6), seed) for seed in range(4)]
    grid = compose("grid", *inputs)
    assert grid.size == (16, 12)
    for index, (left, top) in enumerate(((0, 0), (8, 0), (0, 6), (8, 6))):
        assert grid.crop((left, top, left + 8, top + 6)).tobytes() == inputs[index].tobytes()
    assert compose("grid", inputs[0]).size == (8, 6) and compose("grid", *inputs[:3]).size == (16, 12)


@pytest.mark.parametrize(("box", "kept"), [((4, 0, 8, 8), (0, 0, 8, 8)), ((-4, 0, 8, 8), (4, 0, 8, 8))])
def test_a_canvas_keeps_the_pixels_of_the_picture(box: tuple[int, ...], kept: tuple[int, int, int, int]) -> None:
    picture = noise((8, 8))
    canvas = compose("canvas", picture, size=(12, 8), box=box)
    left, width = max(0, box[0]), kept[2] - kept[0]
    region = canvas.crop((left, 0, left + width, 8))
    assert region.convert("RGB").tobytes() == picture.crop(kept).tobytes()
    assert region.getchannel("A").getextrema() == (255, 255)
    alpha = canvas.getchannel("A").tobytes()
    assert alpha.count(b"\xff") == width * 8 and alpha.count(b"\0") == (12 - width) * 8


def test_a_zoomed_picture_is_in_the_centre() -> None:
    canvas = compose("canvas", Image.new("RGB", (8, 8), "red"), size=(8, 8), box=(2, 2, 4, 4))
    assert canvas.getchannel("A").getbbox() == (2, 2, 6, 6) and canvas.getpixel((3, 3)) == (255, 0, 0, 255)


def test_masks_are_transparent_where_pictures_may_change() -> None:
    painted = Image.new("RGB", (4, 4))
    painted.paste("white", (0, 0, 2, 4))
    erased = Image.new("RGBA", (4, 4), "white")
    erased.paste((0, 0, 0, 0), (0, 0, 2, 4))
    for given in (painted, erased):
        alpha = compose("mask", given, size=(8, 8)).getchannel("A")
        assert [alpha.getpixel((x, 4)) for x in (0, 3, 4, 7)] == [0, 0, 255, 255]
    with pytest.raises(InvalidMedia, match="selects nothing"):
        compose("mask", Image.new("RGB", (4, 4)), size=(8, 8))


def test_a_mixture_is_the_mean() -> None:
    inputs = [Image.new("RGB", (4, 6), colour) for colour in ((240, 0, 0), (0, 240, 0), (0, 0, 240))]
    mixed = compose("mixture", *inputs, size=(6, 6))
    assert mixed.size == (6, 6)
    assert all(abs(value - 80) <= 2 for value in mixed.crop((3, 3, 4, 4)).tobytes())
    with pytest.raises(InvalidMedia):
        compose("mixture", noise((200, 200)), size=(4, 4))
