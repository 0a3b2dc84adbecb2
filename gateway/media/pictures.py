"""Pictures: whole, of a format that backends read, and not too large to decode."""

import warnings
from dataclasses import dataclass
from io import BytesIO

from gateway.media.unusable import Unusable

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Pillow's names for `sniffing.PICTURES`: no other parser of Pillow's sees foreign bytes."""

_MAX_SIDE = 65_535
"""The longest side that JPEG and GIF can have. To shrink a longer one takes memory by its length, up to gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture as it came. Sizes are in pixels as encoded; a backend turns it by its EXIF orientation, if it has one.

    Of an animation the first frame counts.
    """

    data: bytes
    media_type: str
    width: int
    height: int


def check(data: bytes, media_type: str, *, max_pixels: int) -> Picture:
    """Return the picture if all of it can be decoded. Blocks; call it in a thread. Raises `Unusable`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes above Pillow's own limit; ours is checked here
            image = Image.open(BytesIO(data), formats=_FORMATS)
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise Unusable(
                    f"the picture has {width} × {height} pixels; this service takes up to {max_pixels} in all"  # noqa: RUF001
                )
            if max(width, height) > _MAX_SIDE:
                raise Unusable(
                    f"the picture has {width} × {height} pixels; this service takes up to {_MAX_SIDE} a side"  # noqa: RUF001
                )
            # A JPEG can be decoded at an eighth of its size: every byte is still read, for a part of time and memory.
            image.draft(None, (1, 1))
            image.load()
    except Unusable:
        raise
    except Image.DecompressionBombError:
        raise Unusable(f"the picture has more than the {max_pixels} pixels that this service takes") from None
    except Exception:  # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error, zlib.error and others
        raise Unusable(f"the picture ({media_type}) is broken or cut off") from None
    return Picture(data=data, media_type=media_type, width=width, height=height)


def size(data: bytes) -> tuple[int, int]:
    """Return the width and height of a picture that a model drew, in pixels; its header alone is read.

    Raises `ValueError` where it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError):
        raise ValueError("the bytes are no picture") from None
    return width, height
