"""Decoding of image files to pixels, and encoding of pixels to files."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from backends.serving import scans
from backends.serving.decode_worker import DECODE_WORKER
from backends.serving.errors import InvalidValue

MAX_PIXELS = 50_000_000
"""Limit on the pixels of an image: more than a phone's camera takes, and 200 MB in RGBA."""
MAX_SIDE = 65_535
"""Limit on a side in pixels: the longest that JPEG and GIF can have. Lanczos resampling needs memory in proportion to
the side that it shrinks: a long image of one pixel's width would need gigabytes."""

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
OUTPUT_FORMATS = ("png", "jpeg", "webp")
"""Formats of generated files, as the input `output_format` names them."""

_MAX_ENCODED_SIDES = {"jpeg": 65_500, "webp": 16_383}
"""The longest side in pixels of the formats that have a limit."""

Pixels = npt.NDArray[np.uint8]
"""uint8[height, width, 3]"""
Floats = npt.NDArray[np.float32]

_DEFAULT_QUALITY = 95
_HIGH_BIT_DEPTH_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """The first frame of a decoded image, turned upright.

    `transparency` is float32[height, width], 1 for a transparent pixel and 0 for an opaque one; None if all are opaque.
    """

    pixels: Pixels
    transparency: Floats | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def alpha(self) -> npt.NDArray[np.uint8] | None:
        """The opacity of each pixel, uint8[height, width]; None if all are opaque."""
        if self.transparency is None:
            return None
        opacity: npt.NDArray[np.uint8] = ((1 - self.transparency) * 255).round().astype(np.uint8)
        return opacity

    def resize(self, size: tuple[int, int]) -> "DecodedImage":
        """Return the image in another width and height, by Lanczos resampling, as in diffusers' image processor."""
        if size == self.size:
            return self
        alpha = self.alpha
        if alpha is None:
            return DecodedImage(np.asarray(Image.fromarray(self.pixels).resize(size, Image.Resampling.LANCZOS)))
        # In RGBA Pillow weights colours by alpha, so that transparent pixels do not affect the colours of opaque ones.
        rgba = Image.fromarray(np.dstack([self.pixels, alpha]), "RGBA")
        return _from_rgba(rgba.resize(size, Image.Resampling.LANCZOS))


def check_encodable(size: tuple[int, int], output_format: str) -> None:
    """Raise `InvalidValue`, naming `output_format`, if a picture of `size` is too long for the format."""
    longest = _MAX_ENCODED_SIDES.get(output_format)
    if longest is not None and max(size) > longest:
        raise InvalidValue(
            f"A picture of {size[0]} x {size[1]} pixels cannot be {output_format}, whose sides have at most {longest}"
            " pixels: ask for png.",
            "output_format",
        )


def read_image(data: bytes, name: str = "image") -> DecodedImage:
    """Decode a PNG, JPEG, WebP, GIF or BMP.

    Raises `InvalidValue`, naming the input `name`, if the file has another format, is broken or cut off, or exceeds
    `MAX_PIXELS` or `MAX_SIDE`.
    """
    header, body = DECODE_WORKER.call(
        "backends.serving.images:decode_image", data, param=name, max_reply_bytes=4 * MAX_PIXELS, name=name
    )
    width, height, alpha = header.get("width"), header.get("height"), header.get("alpha")
    if not isinstance(width, int) or not isinstance(height, int) or len(body) != width * height * (4 if alpha else 3):
        raise InvalidValue("This image cannot be decoded.", name)
    pixels = np.frombuffer(body, np.uint8, width * height * 3).reshape(height, width, 3)
    if not alpha:
        return DecodedImage(pixels)
    opacity = np.frombuffer(body, np.uint8, offset=width * height * 3).reshape(height, width)
    return DecodedImage(pixels, 1 - opacity.astype(np.float32) / 255)


def decode_image(data: bytes, *, name: str) -> tuple[dict[str, Any], bytes]:
    """Decode an image in this process: `read_image` calls this function in the decode worker.

    Returns `width`, `height` and `alpha`, and the bytes of uint8[height, width, 3]; with `alpha` those of
    uint8[height, width] follow. Raises `InvalidValue` like `read_image`.
    """
    scans.check(data, name)
    image = _load_image(data, name)
    if image.mode in _HIGH_BIT_DEPTH_MODES:
        # Pillow would cut such values off at 255.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    header = {"width": image.width, "height": image.height, "alpha": False}
    if not image.has_transparency_data:
        return header, np.asarray(image.convert("RGB")).tobytes()
    rgba = np.asarray(image.convert("RGBA"))
    pixels, alpha = rgba[..., :3].tobytes(), rgba[..., 3]
    return (header, pixels) if (alpha == 255).all() else (header | {"alpha": True}, pixels + alpha.tobytes())


_PNG_COMPRESSION_LEVEL = 2
"""zlib level of PNG files, 1 to 9. The default, 6, takes three times as long and saves an eighth of the file."""


def encode_image(
    pixels: Pixels, output_format: str, quality: int | None = None, alpha: npt.NDArray[np.uint8] | None = None
) -> bytes:
    """Encode pixels as a file of one of `OUTPUT_FORMATS`. `quality`, 0 to 100, defaults to 95; PNG is lossless.

    `alpha`, uint8[height, width], is 255 for an opaque pixel. JPEG has no transparency: white shows through there.
    """
    options: dict[str, Any] = {}
    if output_format == "png":
        options["compress_level"] = _PNG_COMPRESSION_LEVEL
    else:
        # JPEG's scale starts at 1.
        options["quality"] = max(1, _DEFAULT_QUALITY if quality is None else quality)
    image = Image.fromarray(pixels)
    if alpha is not None:
        opacity = Image.fromarray(alpha)
        if output_format == "jpeg":
            image = Image.composite(image, Image.new("RGB", image.size, "white"), opacity)
        else:
            image.putalpha(opacity)
    file = io.BytesIO()
    image.save(file, output_format.upper(), **options)
    return file.getvalue()


def _load_image(data: bytes, name: str) -> Image.Image:
    """The first frame, decoded and upright, in its own mode."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=INPUT_FORMATS)
        width, height = image.size
    except UnidentifiedImageError:
        raise InvalidValue(f"This is no {', '.join(INPUT_FORMATS[:-1])} or {INPUT_FORMATS[-1]}.", name) from None
    except Image.DecompressionBombError:
        raise InvalidValue(f"The image has more than {MAX_PIXELS} pixels, the most that are accepted.", name) from None
    except Exception as error:  # decoders raise any exception for a broken file
        raise InvalidValue(f"This image cannot be read: {_error_text(error)}.", name) from None
    if width * height > MAX_PIXELS:
        raise InvalidValue(f"The image has {width} x {height} pixels; at most {MAX_PIXELS} are accepted.", name)
    if max(width, height) > MAX_SIDE:
        raise InvalidValue(f"The image has {width} x {height} pixels; at most {MAX_SIDE} per side are accepted.", name)
    try:
        image.load()
    except Exception as error:  # as above
        raise InvalidValue(f"This image cannot be decoded: {_error_text(error)}.", name) from None
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the metadata may be broken while the image is not
        return image


def _from_rgba(image: Image.Image) -> DecodedImage:
    rgba = np.asarray(image)
    alpha = rgba[..., 3]
    return DecodedImage(
        np.ascontiguousarray(rgba[..., :3]), None if (alpha == 255).all() else 1 - alpha.astype(np.float32) / 255
    )


def _error_text(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
