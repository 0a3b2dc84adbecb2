"""Files of pictures: what is inside, as numbers for a model; and numbers as files again."""

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
"""More than a telephone's camera makes; in RGBA they take 200 MB."""
MAX_SIDE = 65_535
"""The longest that JPEG and GIF can have. Lanczos' filter takes memory by the length of what it shrinks: a picture one
pixel wide would take gigabytes."""

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
OUTPUT_FORMATS = ("png", "jpeg", "webp")
"""Those that are written."""

Pixels = npt.NDArray[np.uint8]
"""uint8[height, width, 3]"""
Floats = npt.NDArray[np.float32]

_DEFAULT_QUALITY = 95
_HIGH_BIT_DEPTH_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A decoded picture: upright, the first frame.

    `transparency` is float32[height, width], 1 where nothing is to be seen; None where all can be seen.
    """

    pixels: Pixels
    transparency: Floats | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def resize(self, size: tuple[int, int]) -> "DecodedImage":
        """The picture in another width and height, by Lanczos' filter, as diffusers' image processor does it."""
        if size == self.size:
            return self
        if self.transparency is None:
            return DecodedImage(np.asarray(Image.fromarray(self.pixels).resize(size, Image.Resampling.LANCZOS)))
        alpha = ((1 - self.transparency) * 255).round().astype(np.uint8)
        # Pillow weighs colours by their alpha, so that what cannot be seen does not bleed into what can.
        together = Image.fromarray(np.dstack([self.pixels, alpha]), "RGBA")
        return _from_rgba(together.resize(size, Image.Resampling.LANCZOS))


def read_image(data: bytes, name: str = "image") -> DecodedImage:
    """Decode a PNG, JPEG, WebP, GIF or BMP.

    Raises `InvalidValue` for the input `name` where it is none, broken, cut off, or larger than `MAX_PIXELS` and
    `MAX_SIDE` allow.
    """
    found, body = DECODE_WORKER.call(
        "backends.diffusion.images:decode_image", data, param=name, largest=4 * MAX_PIXELS, name=name
    )
    width, height, alpha = found.get("width"), found.get("height"), found.get("alpha")
    if not isinstance(width, int) or not isinstance(height, int) or len(body) != width * height * (4 if alpha else 3):
        raise InvalidValue("This picture cannot be decoded.", name)
    pixels = np.frombuffer(body, np.uint8, width * height * 3).reshape(height, width, 3)
    if not alpha:
        return DecodedImage(pixels)
    opacity = np.frombuffer(body, np.uint8, offset=width * height * 3).reshape(height, width)
    return DecodedImage(pixels, 1 - opacity.astype(np.float32) / 255)


def decode_image(data: bytes, *, name: str) -> tuple[dict[str, Any], bytes]:
    """Decode a picture here and now: its width and height, and uint8[height, width, 3].

    With `alpha`, uint8[height, width] follows. Raises `InvalidValue` as `read_picture` does, which calls this in a
    process of its own.
    """
    scans.check(data, name)
    image = _load_image(data, name)
    if image.mode in _HIGH_BIT_DEPTH_MODES:
        # Pillow would cut such values off at 255.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    head = {"width": image.width, "height": image.height, "alpha": False}
    if not image.has_transparency_data:
        return head, np.asarray(image.convert("RGB")).tobytes()
    both = np.asarray(image.convert("RGBA"))
    pixels, alpha = both[..., :3].tobytes(), both[..., 3]
    return (head, pixels) if (alpha == 255).all() else (head | {"alpha": True}, pixels + alpha.tobytes())


def read_mask(data: bytes, size: tuple[int, int], name: str = "mask") -> Floats:
    """Decode a mask: float32[height, width], 1 where a picture of `size` may change and 0 where it must not.

    These are the transparent parts; and the white ones of a file without any transparency, grey being in between.
    Raises `InvalidValue` for the input `name` as `read_picture` does, and where the mask has another size.
    """
    picture = read_image(data, name)
    if picture.size != size:
        raise InvalidValue(
            f"The mask has {picture.size[0]} x {picture.size[1]} pixels, and its picture {size[0]} x {size[1]}.", name
        )
    if picture.transparency is not None:
        return picture.transparency
    return np.asarray(Image.fromarray(picture.pixels).convert("L"), np.float32) / np.float32(255)


def resize_mask(mask: Floats, size: tuple[int, int]) -> Floats:
    """A mask, float32[height, width], in another width and height: each pixel the most of those that it covers.

    So the smallest hole in the mask of a large picture stays one when both are shrunk.
    """
    if size == (mask.shape[1], mask.shape[0]):
        return mask
    for axis, side in enumerate(reversed(size)):
        # Each pixel of the file goes into one of the new ones; where there are more of the new, some have the same.
        firsts = np.arange(side) * mask.shape[axis] // side
        mask = np.maximum.reduceat(mask, firsts, axis)
    return mask


def pixels_to_tensor(pixels: Pixels) -> Floats:
    """float32[3, height, width] in -1..1, as an encoder of pictures takes it."""
    image: Floats = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255) * 2 - 1
    return np.ascontiguousarray(image)


def tensor_to_pixels(image: Floats) -> Pixels:
    """What a decoder made, float32[3, height, width], as pixels; what is outside -1..1 is cut off.

    Rounded as diffusers' image processor does it.
    """
    shares = (image / 2 + np.float32(0.5)).clip(0, 1)
    pixels: Pixels = (shares.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return pixels


def composite(painted: Pixels, kept: Pixels, mask: Floats) -> Pixels:
    """`painted` where the mask, float32[height, width], is 1; `kept`, to the bit, where it is 0; between them a mix."""
    share = mask[..., None]
    mixed: Pixels = (painted * share + kept * (1 - share)).round().astype(np.uint8)
    return mixed


_PNG_COMPRESSION_LEVEL = 2
"""Of 9. The usual 6 takes three times as long, which clients wait for, and saves an eighth of the file."""


def encode_image(pixels: Pixels, output_format: str, quality: int | None = None) -> bytes:
    """A file in one of `FORMATS`. `quality` is from 0 to 100, by default 95; PNG has none and loses nothing."""
    options: dict[str, Any] = {}
    if output_format == "png":
        options["compress_level"] = _PNG_COMPRESSION_LEVEL
    else:
        # JPEG's own scale begins at 1.
        options["quality"] = max(1, _DEFAULT_QUALITY if quality is None else quality)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, output_format.upper(), **options)
    return file.getvalue()


def _load_image(data: bytes, name: str) -> Image.Image:
    """The first frame, decoded and upright, in whatever mode it is."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=INPUT_FORMATS)
        width, height = image.size
    except UnidentifiedImageError:
        raise InvalidValue(f"This is no {', '.join(INPUT_FORMATS[:-1])} or {INPUT_FORMATS[-1]}.", name) from None
    except Image.DecompressionBombError:
        raise InvalidValue(f"The picture has more than the {MAX_PIXELS} pixels that are taken.", name) from None
    except Exception as error:  # decoders raise whatever they come across in a broken file
        raise InvalidValue(f"This picture cannot be read: {_error_text(error)}.", name) from None
    if width * height > MAX_PIXELS:
        raise InvalidValue(f"The picture has {width} x {height} pixels; at most {MAX_PIXELS} are taken.", name)
    if max(width, height) > MAX_SIDE:
        raise InvalidValue(f"The picture has {width} x {height} pixels; at most {MAX_SIDE} a side are taken.", name)
    try:
        image.load()
    except Exception as error:  # as above
        raise InvalidValue(f"This picture cannot be decoded: {_error_text(error)}.", name) from None
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # what is written about a picture may be broken while the picture is not
        return image


def _from_rgba(image: Image.Image) -> DecodedImage:
    """A picture of ours in RGBA."""
    both = np.asarray(image)
    alpha = both[..., 3]
    return DecodedImage(
        np.ascontiguousarray(both[..., :3]), None if (alpha == 255).all() else 1 - alpha.astype(np.float32) / 255
    )


def _error_text(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
