"""Verification of images by decoding them once."""

import warnings
from io import BytesIO

from gateway.media.decoders import scans
from gateway.media.encoded_image import PILLOW_FORMATS
from gateway.media.invalid_media import InvalidMedia

_MAX_SIDE = 65_535
"""Longest side, the limit of JPEG and GIF. Scaling an image takes memory in proportion to its side, up to gigabytes."""


def verify_image(data: bytes, media_type: str, *, max_pixels: int, pixels_left: int) -> tuple[int, int]:
    """Return width and height of an image that can be decoded completely. Raises `InvalidMedia` and `MemoryError`.

    `pixels_left` is the number of pixels that the request has left for this image and further ones.
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
                    f"the picture has {width} × {height} pixels; this service takes up to {max_pixels} in all"  # noqa: RUF001
                )
            if max(width, height) > _MAX_SIDE:
                raise InvalidMedia(
                    f"the picture has {width} × {height} pixels; this service takes up to {_MAX_SIDE} a side"  # noqa: RUF001
                )
            if width * height <= pixels_left:  # else the gateway refuses it
                # A JPEG is decoded at an eighth of its size: that reads every byte, in less time and memory.
                image.draft(None, (1, 1))
                image.load()
    except (MemoryError, InvalidMedia):
        raise
    except Image.DecompressionBombError:
        raise InvalidMedia(f"the picture has more than the {max_pixels} pixels that this service takes") from None
    except Exception:  # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error, zlib.error and others
        raise InvalidMedia(f"the picture ({media_type}) is broken or cut off") from None
    return width, height
