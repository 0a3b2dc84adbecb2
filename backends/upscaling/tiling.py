"""Tiles of a picture: windows that overlap, and the parts of their results that are kept.

A pixel of a result depends on the pixels within the network's receptive field. A window therefore reaches `overlap`
pixels beyond the tile that it is for. With an overlap of at least the radius of the receptive field, the joined picture
is the one that the network would make of the whole. Where the field is larger than that, neighbours differ a little:
over `feather` pixels on each side of their border one passes into the other.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from backends.serving.images import Pixels

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """One axis of a tile, in pixels of the picture: the window, and the part of it that is kept.

    The kept part shares its first `before` pixels with the tile before it, and its last `after` with the next.
    """

    window: slice
    kept: slice
    before: int = 0
    after: int = 0

    def weights(self, scale: int) -> tuple[Floats, Floats]:
        """Return the weight of this tile in each pixel of the result, and that of the tile before it; float32[kept]."""
        own = np.ones(_length(self.kept) * scale, np.float32)
        earlier = np.zeros_like(own)
        if self.before:
            rising = _ramp(self.before * scale)
            own[: len(rising)], earlier[: len(rising)] = rising, 1 - rising
        if self.after:
            falling = 1 - _ramp(self.after * scale)
            own[-len(falling) :] = falling
        return own, earlier


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile. All windows of a picture have the same size."""

    rows: Span
    columns: Span

    def cut(self, pixels: Pixels) -> Pixels:
        """Return the window, a view of uint8[height, width, 3]."""
        return pixels[self.rows.window, self.columns.window]

    def paste(self, upscaled: Floats, target: Pixels, scale: int) -> None:
        """Write the kept part of an upscaled window into `target`, the whole picture upscaled by `scale`.

        `upscaled` is float32[3, rows, columns], 0 to 1. Where the network's scale is a multiple of `scale`, each pixel
        is the mean of those that it covers. Tiles must be pasted in the order of `split`. Raises `ValueError` for a
        number that is not finite.
        """
        native = upscaled.shape[1] // _length(self.rows.window)
        kept = upscaled[:, _inside(self.rows, native), _inside(self.columns, native)]
        if (factor := native // scale) > 1:
            channels, height, width = kept.shape
            kept = kept.reshape(channels, height // factor, factor, width // factor, factor).mean((2, 4))
        if not np.isfinite(kept).all():
            raise ValueError("the network returned numbers that are not finite")
        values = kept.transpose(1, 2, 0).clip(0, 1) * np.float32(255)
        place = target[_scaled(self.rows.kept, scale), _scaled(self.columns.kept, scale)]
        if self.rows.before or self.rows.after or self.columns.before or self.columns.after:
            values = place + (values - place) * self._share(scale)[..., None]
        place[:] = (values + np.float32(0.5)).astype(np.uint8)

    def _share(self, scale: int) -> Floats:
        """Return the share of this tile in the mean of all tiles that have been pasted so far, float32[rows, columns].

        The weights of all tiles add up to 1 in each pixel. Those before this one in `split` are all of the row above,
        and the one to the left.
        """
        (own_row, row_above), (own_column, column_before) = self.rows.weights(scale), self.columns.weights(scale)
        own = own_row[:, None] * own_column
        pasted = row_above[:, None] + own_row[:, None] * column_before
        share: Floats = own / (own + pasted)
        return share


def split(width: int, height: int, tile: int, overlap: int, feather: int = 0) -> list[Tile]:
    """Return the tiles of a picture, from the top left to the bottom right. Together they cover it.

    A tile is at most `tile` pixels wide and high, and wider at an edge of the picture, where no window reaches beyond
    it. `feather` is at most `overlap`, and a fourth of `tile`.
    """
    columns = _spans(width, tile, overlap, feather)
    return [Tile(rows, span) for rows in _spans(height, tile, overlap, feather) for span in columns]


def _spans(length: int, tile: int, overlap: int, feather: int) -> list[Span]:
    window = tile + 2 * overlap
    if length <= window:
        return [Span(slice(0, length), slice(0, length))]
    gaps = -(-(length - window) // tile)
    starts = [number * (length - window) // gaps for number in range(gaps + 1)]
    # Two windows share at least twice the overlap. The middle of what they share divides their tiles.
    middles = [(start + window + following) // 2 for start, following in pairwise(starts)]
    firsts = [0, *(middle - feather for middle in middles)]
    lasts = [*(middle + feather for middle in middles), length]
    return [
        Span(slice(start, start + window), slice(first, last), 2 * feather * (first > 0), 2 * feather * (last < length))
        for start, first, last in zip(starts, firsts, lasts, strict=True)
    ]


def _ramp(count: int) -> Floats:
    """Return numbers that rise from 0 to 1."""
    return (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)


def _length(span: slice) -> int:
    return int(span.stop - span.start)


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def _inside(span: Span, scale: int) -> slice:
    """Return where the kept part lies in the upscaled window."""
    return slice((span.kept.start - span.window.start) * scale, (span.kept.stop - span.window.start) * scale)
