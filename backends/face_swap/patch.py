"""A patch of a picture: a new face, and how much of it shows at each pixel."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from backends.face_swap.geometry import Floats, Pixels, Points


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Colours, float32[height, width, 3] from 0 to 255, and their weights, float32[height, width] from 0 to 1.

    It lies in `box` (left, top, right, bottom) of a picture, whose size it need not have: the patch of a large face is
    computed at a smaller one.
    """

    colours: Floats
    weights: Floats
    box: tuple[int, int, int, int]

    def paste(self, picture: Image.Image) -> None:
        """Blend the patch into the picture."""
        size = self.box[2] - self.box[0], self.box[3] - self.box[1]
        colours = Image.fromarray(_to_bytes(self.colours)).resize(size, Image.Resampling.BICUBIC)
        weights = Image.fromarray(_to_bytes(self.weights * 255)).resize(size, Image.Resampling.BILINEAR)
        picture.paste(colours, self.box[:2], weights)


def _to_bytes(values: Floats) -> Pixels:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def clip_box(points: Points, margin: float, picture: Pixels) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) around points, as far as it lies in the picture; it is not empty."""
    height, width = picture.shape[:2]
    left, top = np.clip(np.floor(points.min(0) - margin), 0, [width - 1, height - 1]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(points.max(0) + margin), [left + 1, top + 1], [width, height]).astype(int).tolist()
    return left, top, right, bottom
