"""Cut images into tiles exactly as the processors of the Idefics3 family do.

Source: transformers, `models/idefics3/image_processing_pil_idefics3.py`. Every step there rounds to whole pixels and to
bytes, so this module takes the same steps in the same order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.llm.vision.config import VisionConfig

Tile = npt.NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TileLayout:
    """The tiles of an image: scaled to `scaled_size`, then to `tiled_size`, which is `rows` x `columns` tiles.

    Sizes are (width, height) in pixels. A tile with a small copy of the whole image follows. `rows` and `columns` are 0
    if the image is not cut; then that copy is its only tile.
    """

    scaled_size: Size
    tiled_size: Size
    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        """Number of tiles that the encoder gets."""
        return self.rows * self.columns + 1


def plan_tiles(size: Size, config: VisionConfig) -> TileLayout:
    """Plan the tiles of an image of `size` (width, height) in pixels."""
    scaled_size = _limit_longer_side(_scale_longer_side(size, config.longest_edge), config.largest_side)
    if not config.split:
        return TileLayout(scaled_size, (config.tile, config.tile), 0, 0)
    width, height = _round_up_to_tiles(scaled_size, config.tile)
    if width <= config.tile and height <= config.tile:
        return TileLayout(scaled_size, (width, height), 0, 0)
    return TileLayout(scaled_size, (width, height), height // config.tile, width // config.tile)


def split_into_tiles(image: Image.Image, layout: TileLayout, config: VisionConfig) -> Iterator[Tile]:
    """Yield each tile of an RGB image as float32[3, tile, tile], row by row, then the copy of the whole image."""
    resample, side = Image.Resampling(config.resample), config.tile
    image = image.resize(layout.scaled_size, resample).resize(layout.tiled_size, resample)
    table = _normalization_table(config)
    for row in range(layout.rows):
        for column in range(layout.columns):
            left, top = column * side, row * side
            yield _normalized(image.crop((left, top, left + side, top + side)), table)
    yield _normalized(image.resize((side, side), resample), table)


def _scale_longer_side(size: Size, longest: int) -> Size:
    """Scale the longer side to `longest` pixels; the other becomes even."""
    width, height = size
    aspect = width / height
    if width >= height:
        width, height = longest, int(longest / aspect)
        height += height % 2
    else:
        width, height = int(longest * aspect), longest
        width += width % 2
    return max(width, 1), max(height, 1)


def _limit_longer_side(size: Size, largest: int) -> Size:
    """Scale down to `largest` pixels if the longer side has more."""
    width, height = size
    aspect = width / height
    if width >= height and width > largest:
        width, height = largest, int(largest / aspect)
    elif height > width and height > largest:
        width, height = int(largest * aspect), largest
    return max(width, 1), max(height, 1)


def _round_up_to_tiles(size: Size, side: int) -> Size:
    """Round both sides up to whole tiles, the longer one first."""
    width, height = size
    aspect = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        height = math.ceil(int(width / aspect) / side) * side
    else:
        height = math.ceil(height / side) * side
        width = math.ceil(int(height * aspect) / side) * side
    return width, height


def _normalization_table(config: VisionConfig) -> Tile:
    """Return the normalized value of each byte in each channel, float32[256, 3]."""
    rescaled = (np.arange(256, dtype=np.float64) * config.rescale_factor).astype(np.float32)
    table: Tile = (rescaled[:, None] - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    return table


def _normalized(tile: Image.Image, table: Tile) -> Tile:
    values: Tile = table[np.asarray(tile), np.arange(3)].transpose(2, 0, 1)
    return np.ascontiguousarray(values)
