"""The picture that an image begins with: brought to the model's size, and pasted back where it was not to change."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.diffusion.families.family import Floats
from backends.diffusion.images import Pixels, composite, pixels_to_tensor, read_image, read_mask, resize_mask
from backends.diffusion.options import Size
from backends.serving.errors import InvalidValue

_MASK_THRESHOLD = 0.5
"""From this much on a mask counts as set, as with diffusers' mask processor."""


@dataclass(frozen=True, slots=True, eq=False)
class InitImage:
    """A picture of the model's size. `area`, float32[height, width], is 1 where it may change; None: everywhere."""

    pixels: Pixels
    mask: Floats | None

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def to_tensor(self) -> Floats:
        """float32[3, height, width] in -1..1, for the encoder."""
        return pixels_to_tensor(self.pixels)

    def latent_mask(self, factor: int) -> Floats | None:
        """Which cells of the latent may change: float32[h, w] of 0 and 1.

        A cell goes by the pixel in its corner, as in diffusers' inpainting pipelines. A mask so small that it would be
        lost has every cell that it touches.
        """
        if self.mask is None:
            return None
        firm = self.mask >= _MASK_THRESHOLD
        cells = firm[::factor, ::factor]
        if firm.any() and not cells.any():
            height, width = firm.shape
            cells = firm.reshape(height // factor, factor, width // factor, factor).any(axis=(1, 3))
        return cells.astype(np.float32)

    def composite(self, pixels: Pixels) -> Pixels:
        """A decoded image, with what was not to change as it was: a round trip through a latent loses a little."""
        return pixels if self.mask is None else composite(pixels, self.pixels, self.mask)


def load_init_image(file: bytes, mask: bytes | None, choose: Callable[[Size], Size]) -> InitImage:
    """Read a picture, and bring it to the size that `choose` gives for its own.

    Without a mask, what is transparent may change and the rest must not: so a picture within transparent borders is
    painted on beyond its edges. Where both are there, the mask says what may change. Raises `InvalidValue`.
    """
    picture = read_image(file)
    area = picture.transparency if mask is None else read_mask(mask, picture.size)
    if area is not None and not (area >= _MASK_THRESHOLD).any():
        if mask is not None:
            raise InvalidValue("The mask leaves nothing that may change.", "mask")
        area = None
    size = choose(picture.size)
    # Before anything is worked out of it: a picture as large as may come would take gigabytes in floats.
    picture = picture.resize(size)
    pixels = picture.pixels
    if picture.transparency is not None:
        pixels = _fill_transparent(pixels, picture.transparency)
    return InitImage(pixels, None if area is None else resize_mask(area, size))


def _fill_transparent(pixels: Pixels, transparency: Floats) -> Pixels:
    """The picture on the mean colour of what can be seen: what cannot be seen may be of any colour in a file."""
    seen: Floats = 1 - transparency
    weight = float(seen.sum())
    colour = np.tensordot(seen, pixels.astype(np.float32), 2) / weight if weight else np.full(3, 127.5)
    ground = np.broadcast_to(colour.round().astype(np.uint8), pixels.shape)
    return composite(ground, pixels, transparency)
