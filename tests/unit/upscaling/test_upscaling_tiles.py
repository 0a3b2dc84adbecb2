"""Tiles of pictures: they cover each pixel, and the joined picture is that of the whole."""

import itertools

import numpy as np
import pytest

from backends.upscaling.tiling import split

RADIUS = 3
SCALE = 4


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)


def blurred(pixels: np.ndarray) -> np.ndarray:
    """A network with a receptive field of 3 pixels and a scale of 4: float32[3, 4 h, 4 w], zeros beyond the edges."""
    image = pixels.transpose(2, 0, 1).astype(np.float32) / 255
    for axis in (1, 2):
        padded = np.pad(image, [(RADIUS, RADIUS) if at == axis else (0, 0) for at in range(3)])
        image = np.lib.stride_tricks.sliding_window_view(padded, 2 * RADIUS + 1, axis).mean(-1)
    return image.repeat(SCALE, 1).repeat(SCALE, 2)


def whole(pixels: np.ndarray, scale: int) -> np.ndarray:
    image = blurred(pixels)
    if scale < SCALE:
        image = (image[:, ::2, ::2] + image[:, 1::2, ::2] + image[:, ::2, 1::2] + image[:, 1::2, 1::2]) / 4
    return (image.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)


def joined(pixels: np.ndarray, scale: int, tile: int, overlap: int, feather: int = 0) -> np.ndarray:
    result = np.full((pixels.shape[0] * scale, pixels.shape[1] * scale, 3), 99, np.uint8)
    for each in split(pixels.shape[1], pixels.shape[0], tile, overlap, feather):
        each.paste(blurred(each.cut(pixels)), result, scale)
    return result


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (22, 22), (23, 61), (64, 40), (101, 97)])
@pytest.mark.parametrize("scale", [2, 4])
def test_the_joined_picture_is_that_of_the_whole(size: tuple[int, int], scale: int) -> None:
    pixels = noise(*size)
    difference = np.abs(joined(pixels, scale, 16, RADIUS).astype(int) - whole(pixels, scale).astype(int))
    assert difference.max() <= 1  # the order of sums


@pytest.mark.parametrize("size", [(61, 23), (101, 97)])
def test_feathers_change_nothing_where_neighbours_agree(size: tuple[int, int]) -> None:
    pixels = noise(*size)
    difference = np.abs(joined(pixels, 4, 16, RADIUS + 4, 4).astype(int) - whole(pixels, 4).astype(int))
    assert difference.max() <= 1


def test_too_small_an_overlap_shows() -> None:
    """The comparison can fail."""
    pixels = noise(101, 97)
    difference = np.abs(joined(pixels, 4, 16, RADIUS - 1).astype(int) - whole(pixels, 4).astype(int))
    assert difference.max() > 20


def test_feathers_pass_from_one_tile_to_the_next() -> None:
    """Each tile is of one colour. Along a row and a column the colours change by small steps, and also at corners."""
    tiles = split(60, 60, 16, 4, 4)
    result = np.zeros((240, 240, 3), np.uint8)
    for number, each in enumerate(tiles):
        rows, columns = (span.window.stop - span.window.start for span in (each.rows, each.columns))
        each.paste(np.full((3, rows * 4, columns * 4), [0.2, 0.8][number % 2], np.float32), result, 4)
    assert set(np.unique(result)) >= {51, 204}
    steps = [np.abs(np.diff(result.astype(int), axis=axis)).max() for axis in (0, 1)]
    assert max(steps) <= 153 / 32 + 2  # eight pixels, four times enlarged


def test_windows_have_one_size_and_tiles_have_their_margins() -> None:
    for length, overlap in itertools.product((30, 31, 47, 100, 257), (0, 3, 7)):
        tiles = split(length, 16, 16, overlap)
        windows = {(each.columns.window.stop - each.columns.window.start) for each in tiles}
        assert windows == {min(length, 16 + 2 * overlap)}
        kept = [each.columns.kept for each in tiles]
        assert [span.start for span in kept] == [0, *(span.stop for span in kept[:-1])] and kept[-1].stop == length
        for each in tiles:
            window, part = each.columns.window, each.columns.kept
            assert window.start >= 0 and window.stop <= length
            assert part.start == 0 or part.start - window.start >= overlap
            assert part.stop == length or window.stop - part.stop >= overlap


def test_numbers_that_are_not_finite_are_refused() -> None:
    (tile,) = split(5, 5, 16, 2)
    with pytest.raises(ValueError, match="not finite"):
        tile.paste(np.full((3, 20, 20), np.nan, np.float32), np.zeros((20, 20, 3), np.uint8), 4)
