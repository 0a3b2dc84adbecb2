"""Encoded images: of requests, verified by `gateway.media.decoders.images`, and of models."""

from dataclasses import dataclass
from io import BytesIO

PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Pillow's names for `sniffing.IMAGE_TYPES`. No other parser of Pillow gets foreign bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """An image as it was received. Width and height are in pixels, before any rotation by an EXIF orientation.

    Backends rotate. Of an animation, the first frame counts.
    """

    data: bytes
    media_type: str
    width: int
    height: int


def image_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels of an image of a model, from its header.

    Raises `ValueError` for other data.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=PILLOW_FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("the bytes are not an image") from None
    return width, height
