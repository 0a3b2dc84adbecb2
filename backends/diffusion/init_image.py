"""The image that an edit starts from: resized to the model's size, and pasted back where it must not change."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.diffusion.families.family import Floats
from backends.diffusion.images import composite, pixels_to_tensor, read_mask, resize_mask
from backends.diffusion.options import Size
from backends.serving.errors import InvalidValue
from backends.serving.images import Pixels, read_image

_MASK_THRESHOLD = 0.5
"""Value from which a mask counts as set, as in diffusers' mask processor."""


@dataclass(frozen=True, slots=True, eq=False)
class InitImage:
    """An image of the model's size. `mask`, float32[height, width], is 1 where it may change; None means everywhere."""

    pixels: Pixels
    mask: Floats | None

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def to_tensor(self) -> Floats:
        """Return float32[3, height, width] in -1..1, the input of the VAE encoder."""
        return pixels_to_tensor(self.pixels)

    def latent_mask(self, factor: int) -> Floats | None:
        """Return the latent cells that may change, float32[h, w] of 0 and 1; None means all.

        The pixel in its upper left corner decides a cell, as in diffusers' inpainting pipelines. If that would leave no
        cell, every cell that the mask touches may change.
        """
        if self.mask is None:
            return None
        binary = self.mask >= _MASK_THRESHOLD
        cells = binary[::factor, ::factor]
        if binary.any() and not cells.any():
            height, width = binary.shape
            cells = binary.reshape(height // factor, factor, width // factor, factor).any(axis=(1, 3))
        return cells.astype(np.float32)

    def composite(self, pixels: Pixels) -> Pixels:
        """Paste the unmasked part over a generated image, in which the VAE has changed it a little."""
        return pixels if self.mask is None else composite(pixels, self.pixels, self.mask)


def load_init_image(file: bytes, mask: bytes | None, choose_size: Callable[[Size], Size]) -> InitImage:
    """Decode an image and resize it to the size that `choose_size` returns for its own.

    Without a mask the transparent pixels may change and the others must not: an image with transparent borders is
    extended beyond its edges. With a mask the mask decides. Raises `InvalidValue`.
    """
    image = read_image(file)
    mutable = image.transparency if mask is None else read_mask(mask, image.size)
    if mutable is not None and not (mutable >= _MASK_THRESHOLD).any():
        if mask is not None:
            raise InvalidValue("The mask selects no pixel that may change.", "mask")
        mutable = None
    size = choose_size(image.size)
    # Resize before converting to floats: the largest image that is accepted would take gigabytes.
    image = image.resize(size)
    pixels = image.pixels
    if image.transparency is not None:
        pixels = fill_transparent(pixels, image.transparency)
    return InitImage(pixels, None if mutable is None else resize_mask(mutable, size))


def fill_transparent(pixels: Pixels, transparency: Floats) -> Pixels:
    """Fill transparent pixels, whose colour in a file is arbitrary, with the mean colour of the opaque ones."""
    opacity: Floats = 1 - transparency
    total = float(opacity.sum())
    mean = np.tensordot(opacity, pixels.astype(np.float32), 2) / total if total else np.full(3, 127.5)
    background = np.broadcast_to(mean.round().astype(np.uint8), pixels.shape)
    return composite(background, pixels, transparency)
