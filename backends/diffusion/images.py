"""Masks of images, and the conversion between pixels and the tensors of a VAE."""

import numpy as np
from PIL import Image

from backends.serving.errors import InvalidValue
from backends.serving.images import Floats, Pixels, read_image


def read_mask(data: bytes, size: tuple[int, int], name: str = "mask") -> Floats:
    """Decode a mask: float32[height, width], 1 where an image of `size` may change and 0 where it must not.

    A transparent pixel is 1 and an opaque one 0. In a file without transparency a white pixel is 1 and a black one 0.
    Raises `InvalidValue` like `read_image`, and if the mask has another size.
    """
    image = read_image(data, name)
    if image.size != size:
        raise InvalidValue(
            f"The mask has {image.size[0]} x {image.size[1]} pixels, and its image {size[0]} x {size[1]}.", name
        )
    if image.transparency is not None:
        return image.transparency
    return np.asarray(Image.fromarray(image.pixels).convert("L"), np.float32) / np.float32(255)


def resize_mask(mask: Floats, size: tuple[int, int]) -> Floats:
    """Return a mask, float32[height, width], in another width and height; each pixel is the maximum of those it covers.

    The maximum keeps the smallest hole in the mask of a large image when both shrink.
    """
    if size == (mask.shape[1], mask.shape[0]):
        return mask
    for axis, side in enumerate(reversed(size)):
        # Shrinking assigns each old pixel to one new pixel; growing repeats old pixels.
        firsts = np.arange(side) * mask.shape[axis] // side
        mask = np.maximum.reduceat(mask, firsts, axis)
    return mask


def pixels_to_tensor(pixels: Pixels) -> Floats:
    """Convert pixels to float32[3, height, width] in -1..1, the input of a VAE encoder."""
    image: Floats = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255) * 2 - 1
    return np.ascontiguousarray(image)


def tensor_to_pixels(image: Floats) -> Pixels:
    """Convert a VAE decoder's output, float32[3, height, width], to pixels; values are clipped to -1..1.

    Frames of a video, float32[3, frames, height, width], become uint8[frames, height, width, 3]. The rounding is that
    of diffusers' image processor.
    """
    scaled = (image / 2 + np.float32(0.5)).clip(0, 1)
    pixels: Pixels = (np.moveaxis(scaled, 0, -1) * 255).round().astype(np.uint8)
    return pixels


def composite(painted: Pixels, original: Pixels, mask: Floats) -> Pixels:
    """Blend two images by a mask, float32[height, width]: 1 is `painted`, 0 is exactly `original`."""
    weight = mask[..., None]
    blended: Pixels = (painted * weight + original * (1 - weight)).round().astype(np.uint8)
    return blended
