"""Files of pictures: what is inside, and the RGB that a model is shown."""

import base64
import binascii
import hashlib
import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from backends.serving.errors import InvalidValue

MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
"""More than a telephone's camera makes; in RGB they take 192 MB."""

# Formats that people send. Others are left out because Pillow hands some to programs of their own (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_EXIF_ORIENTATION = 0x0112
# What undoes each orientation but the upright one.
_UPRIGHT = {
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
_FLOATS = ("F",)
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class Picture:
    """An encoded picture, whose header has been read and whose pixels have not."""

    def __init__(self, encoded: bytes, number: int) -> None:
        """`encoded` is a file in base64; `number`, from 1 on, is how errors call it. Raises `InvalidValue`."""
        self._number = number
        try:
            # Line breaks are allowed, as in mail; anything else outside the alphabet is not.
            file = base64.b64decode(encoded.translate(None, b" \r\n\t"), validate=True)
        except (binascii.Error, ValueError):
            raise self._refused("is not base64") from None
        if len(file) > MAX_BYTES:
            raise self._refused(f"has {len(file)} bytes; at most {MAX_BYTES} are taken")
        self.digest = hashlib.sha256(file).digest()
        try:
            self._image: Image.Image = Image.open(io.BytesIO(file), formats=FORMATS)
            # Formats have `getexif` of their own, and that of PNG decodes the pixels. TIFF is turned by its decoder.
            tags = Image.Image.getexif(self._image)
            self._orientation = 1 if self._image.format == "TIFF" else tags.get(_EXIF_ORIENTATION, 1)
        except UnidentifiedImageError:
            raise self._refused(f"is none of {', '.join(FORMATS)}") from None
        except Exception as error:  # decoders raise whatever they come across in a broken file
            raise self._refused(f"cannot be read: {_said(error)}") from None
        width, height = self._image.size
        if width * height > MAX_PIXELS:
            raise self._refused(f"has {width} x {height} pixels; at most {MAX_PIXELS} are taken")
        self.size = (height, width) if self._orientation in _SIDEWAYS else (width, height)
        """Width and height as it is to be looked at."""

    def rgb(self) -> Image.Image:
        """Decode it: upright, the first frame, transparent parts on white. Raises `InvalidValue`; call it once."""
        try:
            self._image.seek(0)
            turn = _UPRIGHT.get(self._orientation)
            return _to_rgb(self._image if turn is None else self._image.transpose(turn))
        except Exception as error:  # decoders raise whatever they come across in a broken file
            raise self._refused(f"cannot be decoded: {_said(error)}") from None
        finally:
            self._image.close()

    def _refused(self, why: str) -> InvalidValue:
        return InvalidValue(f"Picture {self._number} {why}.", "image")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP:
        # Pillow would cut such values off at 255.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in _FLOATS:
        raise ValueError("its values are fractions, of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
