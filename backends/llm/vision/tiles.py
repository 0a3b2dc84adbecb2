"""Pictures to tiles, exactly as the processors of the Idefics3 family cut them.

Source: transformers, `models/idefics3/image_processing_pil_idefics3.py`. Every step there rounds to whole pixels and to
bytes, so the same steps are taken in the same order.
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
    """How a picture is cut: scaled to `first`, then to `whole`, which is `rows` x `columns` tiles.

    `rows` and `columns` are 0 where it is not cut; otherwise a small copy of the whole picture follows the tiles.
    """

    scaled_size: Size
    tiled_size: Size
    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        """How many the encoder is shown."""
        return self.rows * self.columns + 1


def plan_tiles(size: Size, facts: VisionConfig) -> TileLayout:
    """Decide how a picture of so many pixels (width, height) is cut."""
    first = _below(_scaled(size, facts.longest_edge), facts.largest_side)
    if not facts.split:
        return TileLayout(first, (facts.tile, facts.tile), 0, 0)
    width, height = _to_multiples(first, facts.tile)
    if width <= facts.tile and height <= facts.tile:
        return TileLayout(first, (width, height), 0, 0)
    return TileLayout(first, (width, height), height // facts.tile, width // facts.tile)


def split_into_tiles(image: Image.Image, how: TileLayout, facts: VisionConfig) -> Iterator[Tile]:
    """Cut an RGB picture: float32[3, tile, tile] for each tile, row by row, then for the whole."""
    resample, side = Image.Resampling(facts.resample), facts.tile
    image = image.resize(how.scaled_size, resample).resize(how.tiled_size, resample)
    shades = _normalization_table(facts)
    for row in range(how.rows):
        for column in range(how.columns):
            left, top = column * side, row * side
            yield _normalised(image.crop((left, top, left + side, top + side)), shades)
    yield _normalised(image.resize((side, side), resample), shades)


def _scaled(size: Size, longest: int) -> Size:
    """Bring the longer side to `longest`; the other becomes even."""
    width, height = size
    aspect = width / height
    if width >= height:
        width, height = longest, int(longest / aspect)
        height += height % 2
    else:
        width, height = int(longest * aspect), longest
        width += width % 2
    return max(width, 1), max(height, 1)


def _below(size: Size, largest: int) -> Size:
    width, height = size
    aspect = width / height
    if width >= height and width > largest:
        width, height = largest, int(largest / aspect)
    elif height > width and height > largest:
        width, height = int(largest * aspect), largest
    return max(width, 1), max(height, 1)


def _to_multiples(size: Size, side: int) -> Size:
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


def _normalization_table(facts: VisionConfig) -> Tile:
    """What each byte of each channel becomes: float32[256, 3]."""
    rescaled = (np.arange(256, dtype=np.float64) * facts.rescale_factor).astype(np.float32)
    shades: Tile = (rescaled[:, None] - np.array(facts.mean, np.float32)) / np.array(facts.std, np.float32)
    return shades


def _normalised(tile: Image.Image, shades: Tile) -> Tile:
    values: Tile = shades[np.asarray(tile), np.arange(3)].transpose(2, 0, 1)
    return np.ascontiguousarray(values)
