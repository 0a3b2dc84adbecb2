"""Preparation of the image of an edit: resizing, filling of transparent parts, and masks."""

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.diffusion.init_image import load_init_image


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def within_borders(width: int, height: int, colour: tuple[int, int, int] = (200, 60, 20)) -> Any:
    """Make an image of one colour whose outer half is transparent, with another colour in the transparent pixels."""
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[:, width // 4 : 3 * width // 4] = (*colour, 255)
    return pixels


def test_an_image_with_borders_is_resized_and_filled() -> None:
    canvas = load_init_image(png(within_borders(512, 256)), None, lambda size: (size[0] // 8, size[1] // 8))
    assert canvas.size == (64, 32)
    assert np.abs(canvas.pixels.astype(int) - (200, 60, 20)).max() < 8, "what cannot be seen bleeds into what can"
    assert canvas.mask is not None
    assert canvas.mask[:, :16].min() == canvas.mask[:, 48:].min() == 1 and canvas.mask[:, 16:48].max() == 0


@pytest.mark.parametrize("corner", [(0, 0), (1003, 517), (1999, 1999)])
def test_a_tiny_hole_in_the_mask_of_a_large_image_may_change(corner: tuple[int, int]) -> None:
    side = 2000
    mask = np.full((side, side, 4), 255, np.uint8)
    mask[corner][3] = 0
    canvas = load_init_image(png(np.zeros((side, side, 3), np.uint8)), png(mask), lambda size: (64, 64))
    cells = canvas.latent_mask(8)
    assert cells is not None and cells.sum() == 1
    assert canvas.mask is not None and np.abs(np.argwhere(canvas.mask == 1) - np.array(corner) * 64 / side).max() <= 1
    painted = canvas.composite(np.full((64, 64, 3), 90, np.uint8))
    assert painted.sum() == 3 * 90


def test_the_memory_for_a_large_image_is_bounded() -> None:
    """A file of some kilobytes may hold 50 million pixels."""
    side = 2000
    file = png(within_borders(side, side))
    tracemalloc.start()
    try:
        load_init_image(file, None, lambda size: (64, 64))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most / side**2 < 32, f"{most / side**2:.0f} bytes a pixel"
