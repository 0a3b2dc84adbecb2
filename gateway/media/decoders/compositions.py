"""Pictures made of other pictures: a grid, a canvas to extend a picture on, a mask, and a mixture."""

from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.media.decoders import pictures
from gateway.media.invalid_media import InvalidMedia

if TYPE_CHECKING:
    from PIL import Image

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""
Box: TypeAlias = tuple[int, int, int, int]
"""Left and top edge, width and height in pixels. Edges may lie outside of the canvas."""

_MIN_COLUMN_PICTURES = 2
_OPAQUE = 128
"""Value of a mask from which a pixel stays."""
_PNG_LEVEL = 1
"""Compression of PNG files. Higher levels take many times as long for a few per cent."""


def compose(data: bytes, task: dict[str, Any]) -> bytes:
    """Return the PNG file of a composition. `data` are its input files, whose sizes in bytes are `sizes` of the task.

    `kind` of the task is the function of this module that makes it, `media_types` are the types of the files, and
    `max_pixels` limits each of them. Raises `InvalidMedia` and `MemoryError`.
    """
    read, at = [], 0
    for size, media_type in zip(task["sizes"], task["media_types"], strict=True):
        read.append((data[at : at + size], media_type))
        at += size
    if task["kind"] == "mask":
        (file,) = read
        made = mask(*file, size=_size(task), max_pixels=task["max_pixels"])
    else:
        inputs = [pictures.read(*file, max_pixels=task["max_pixels"]) for file in read]
        match task["kind"]:
            case "grid":
                made = grid(inputs)
            case "canvas":
                left, top, width, height = task["box"]
                made = canvas(inputs[0], _size(task), (left, top, width, height))
            case _:
                made = mixture(inputs, _size(task))
    encoded = BytesIO()
    made.save(encoded, "PNG", compress_level=_PNG_LEVEL)
    return encoded.getvalue()


def grid(inputs: "list[Image.Image]") -> "Image.Image":
    """Return pictures of one size in two columns, in the order of reading."""
    from PIL import Image

    width, height = inputs[0].size
    columns = min(_MIN_COLUMN_PICTURES, len(inputs))
    rows = -(-len(inputs) // columns)
    made = Image.new("RGB", (columns * width, rows * height))
    for index, picture in enumerate(inputs):
        row, column = divmod(index, columns)
        made.paste(pictures.cover(picture, (width, height)), (column * width, row * height))
    return made


def canvas(picture: "Image.Image", size: Size, box: Box) -> "Image.Image":
    """Return an image of `size` that shows `picture` in `box` and is transparent elsewhere.

    Where the picture has the size of the box already, its pixels are the same in the canvas.
    """
    from PIL import Image

    left, top, *inner = box
    made = Image.new("RGBA", size, (255, 255, 255, 0))
    made.paste(pictures.cover(picture, (inner[0], inner[1])).convert("RGBA"), (left, top))
    return made


def mask(data: bytes, media_type: str, *, size: Size, max_pixels: int) -> "Image.Image":
    """Return a mask in `size`: transparent where an image may change.

    That is where the given image is transparent, or, without transparent pixels, where it is bright.
    """
    from PIL import Image, ImageOps

    from gateway.media.decoders import images
    from gateway.media.encoded_image import PILLOW_FORMATS

    images.verify_image(data, media_type, max_pixels=max_pixels, pixels_left=max_pixels)
    with Image.open(BytesIO(data), formats=PILLOW_FORMATS) as image:
        given = ImageOps.exif_transpose(image).convert("RGBA")
    alpha = given.getchannel("A")
    is_erased = alpha.histogram()[:_OPAQUE] != [0] * _OPAQUE
    opaque = alpha if is_erased else ImageOps.invert(given.convert("L"))
    opaque = opaque.resize(size, Image.Resampling.NEAREST).point(lambda value: 255 if value >= _OPAQUE else 0)
    if not opaque.histogram()[0]:
        raise InvalidMedia("the mask selects nothing: paint what may change white, or make it transparent")
    made = Image.new("RGBA", size, (0, 0, 0, 255))
    made.putalpha(opaque)
    return made


def mixture(inputs: "list[Image.Image]", size: Size) -> "Image.Image":
    """Return the mean of pictures, each scaled and cropped to `size`."""
    from PIL import Image

    made = pictures.cover(inputs[0], size)
    for number, picture in enumerate(inputs[1:], start=2):
        made = Image.blend(made, pictures.cover(picture, size), 1 / number)
    return made


def _size(task: dict[str, Any]) -> Size:
    return task["width"], task["height"]
