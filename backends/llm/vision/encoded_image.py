"""Encoded image files of requests: check their headers and decode them to RGB, in a worker process.

A broken or hostile file can end the worker, but not the model's process. Source of the orientations: Exif 2.3, tag
0x0112.
"""

import base64
import binascii
import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from backends.serving import scans
from backends.serving.decode_worker import DECODE_WORKER
from backends.serving.errors import InvalidValue

MAX_BYTES = 64 << 20
"""Largest file, in bytes."""
MAX_PIXELS = 64_000_000
"""Largest image, in pixels: more than a phone's camera makes. In RGB they take 192 MB."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Accepted formats. Others are left out because Pillow runs external programs for some (EPS)."""
_EXIF_ORIENTATION = 0x0112
# The transposition that turns each orientation upright; 1 is upright already.
_TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_WHITE = (255, 255, 255, 255)
_FLOAT_MODES = ("F",)
_16_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


_MAX_CACHED_SIZES = 4096
_sizes: dict[bytes, tuple[int, int]] = {}
"""Sizes of recent images by digest: a chat sends the same images again with every turn."""


class EncodedImage:
    """An encoded image, whose header has been read and whose pixels have not."""

    def __init__(self, encoded: bytes, number: int) -> None:
        """`encoded` is a file in base64; `number`, from 1, names it in errors. Raises `InvalidValue`."""
        self._encoded = encoded
        self._number = number
        self.digest = hashlib.sha256(encoded).digest()
        self.size = _sizes.get(self.digest) or self._checked_size(self._call("read_image_size", 0)[0])
        """Width and height in pixels, after the image is turned upright."""

        if len(_sizes) >= _MAX_CACHED_SIZES:
            _sizes.clear()
        _sizes[self.digest] = self.size

    def rgb(self) -> Image.Image:
        """Decode the first frame: upright, transparent parts on white. Raises `InvalidValue`. May be called once."""
        header, body = self._call("decode_image", 3 * MAX_PIXELS)
        self._encoded = b""
        if self._checked_size(header) != self.size or len(body) != 3 * self.size[0] * self.size[1]:
            raise self._undecodable()
        return Image.frombuffer("RGB", self.size, body, "raw", "RGB", 0, 1)

    def _call(self, function: str, largest: int) -> tuple[dict[str, object], bytearray]:
        """Call a function of this module, by its name, in the decode worker."""
        return DECODE_WORKER.call(
            f"{__name__}:{function}",
            self._encoded,
            param="image",
            max_reply_bytes=largest,
            number=self._number,
            max_bytes=MAX_BYTES,
            max_pixels=MAX_PIXELS,
        )

    def _checked_size(self, header: dict[str, object]) -> tuple[int, int]:
        width, height = header.get("width"), header.get("height")
        if not isinstance(width, int) or not isinstance(height, int) or not 0 < width * height <= MAX_PIXELS:
            raise self._undecodable()
        return width, height

    def _undecodable(self) -> InvalidValue:
        return _invalid_image(self._number, "cannot be decoded")


def read_image_size(encoded: bytes, *, number: int, max_bytes: int, max_pixels: int) -> tuple[dict[str, Any], bytes]:
    """Return an image's upright width and height from its header. Runs in the decode worker. Raises `InvalidValue`."""
    image, orientation = _open_image(encoded, number, max_bytes, max_pixels)
    width, height = image.size
    width, height = (height, width) if orientation in _SIDEWAYS else (width, height)
    return {"width": width, "height": height}, b""


def decode_image(encoded: bytes, *, number: int, max_bytes: int, max_pixels: int) -> tuple[dict[str, Any], bytes]:
    """Return an image's upright width and height, and the bytes of uint8[height, width, 3].

    Runs in the decode worker. Raises `InvalidValue`.
    """
    image, orientation = _open_image(encoded, number, max_bytes, max_pixels)
    try:
        image.seek(0)
        transpose = _TRANSPOSE_OF_ORIENTATION.get(orientation)
        rgb = _to_rgb(image if transpose is None else image.transpose(transpose))
    except Exception as error:  # decoders raise many types for a broken file
        raise _invalid_image(number, f"cannot be decoded: {_error_text(error)}") from None
    return {"width": rgb.width, "height": rgb.height}, rgb.tobytes()


def _open_image(encoded: bytes, number: int, max_bytes: int, max_pixels: int) -> tuple[Image.Image, int]:
    """Return an image, whose pixels are not yet decoded, and its Exif orientation. Raises `InvalidValue`."""
    try:
        # Spaces and line breaks are allowed, as in mail; anything else outside the alphabet is not.
        file = base64.b64decode(encoded.translate(None, b" \r\n\t"), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid_image(number, "is not base64") from None
    if len(file) > max_bytes:
        raise _invalid_image(number, f"has {len(file)} bytes; at most {max_bytes} are accepted")
    scans.check(file, "image")
    try:
        image: Image.Image = Image.open(io.BytesIO(file), formats=FORMATS)
        # The base class's `getexif`: that of PNG would decode the pixels. Pillow's decoder turns TIFF by itself.
        tags = Image.Image.getexif(image)
        orientation = 1 if image.format == "TIFF" else tags.get(_EXIF_ORIENTATION, 1)
    except UnidentifiedImageError:
        raise _invalid_image(number, f"is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise many types for a broken file
        raise _invalid_image(number, f"cannot be read: {_error_text(error)}") from None
    width, height = image.size
    if width * height > max_pixels:
        raise _invalid_image(number, f"has {width} x {height} pixels; at most {max_pixels} are accepted")
    return image, orientation


def _invalid_image(number: int, why: str) -> InvalidValue:
    return InvalidValue(f"Image {number} {why}.", "image")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _16_BIT_MODES:
        # Pillow would clip such values at 255.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in _FLOAT_MODES:
        raise ValueError("its pixel values are floating-point numbers of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _error_text(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
