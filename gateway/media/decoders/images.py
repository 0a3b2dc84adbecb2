"""Verification of images by decoding them once."""

import warnings
from io import BytesIO

from gateway.media.decoders import scans
from gateway.media.encoded_image import PILLOW_FORMATS
from gateway.media.invalid_media import InvalidMedia

_MAX_SIDE = 65_535
"""Longest side, the limit of JPEG and GIF. Scaling an image takes memory in proportion to its side, up to gigabytes."""


def verify_image(data: bytes, media_type: str, *, max_pixels: int, pixels_left: int) -> tuple[int, int]:
    """Decode an image once, and return its width and height in pixels. Raises `InvalidMedia` and `MemoryError`.

    `pixels_left` is the number of pixels that this image and the following ones of the request may still have.
    """
    from PIL import Image

    try:
        scans.check(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes above Pillow's limit; ours is checked below
            image = Image.open(BytesIO(data), formats=PILLOW_FORMATS)
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise InvalidMedia(
                    f"the image has {width} × {height} pixels; the limit is {max_pixels} pixels in all"  # noqa: RUF001
                )
            if max(width, height) > _MAX_SIDE:
                raise InvalidMedia(
                    f"the image has {width} × {height} pixels; the limit is {_MAX_SIDE} per side"  # noqa: RUF001
                )
            if width * height <= pixels_left:  # otherwise the gateway refuses the image
                # A JPEG is decoded at an eighth of its size: that reads every byte, in less time and memory.
                image.draft(None, (1, 1))
                image.load()
    except (MemoryError, InvalidMedia):
        raise
    except Image.DecompressionBombError:
        raise InvalidMedia(f"the image has more pixels than the limit of {max_pixels}") from None
    except Exception:  # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error, zlib.error and others
        raise InvalidMedia(f"the image ({media_type}) is damaged or truncated") from None
    return width, height
