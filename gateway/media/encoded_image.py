"""Pictures: what is known of one that was looked at (`gateway.media.decoders.images`), or that a model drew."""

from dataclasses import dataclass
from io import BytesIO

PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Pillow's names for `sniffing.PICTURES`: no other parser of Pillow's sees foreign bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """A picture as it came. Sizes are in pixels as encoded; a backend turns it by its EXIF orientation, if it has one.

    Of an animation the first frame counts.
    """

    data: bytes
    media_type: str
    width: int
    height: int


def image_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of a picture that a model drew, in pixels; its header alone is read.

    Raises `ValueError` where it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=PILLOW_FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("the bytes are no picture") from None
    return width, height
