"""Reading of pictures, and their scaling to the size of a video."""

from io import BytesIO
from typing import TYPE_CHECKING

from gateway.media.decoders import images

if TYPE_CHECKING:
    from PIL import Image

_BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels."""


def cover(picture: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """Return a picture of `size`: scaled until it covers that size, and cropped at the centre."""
    from PIL import Image, ImageOps

    return picture if picture.size == size else ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def first_frame(data: bytes, media_type: str, *, size: tuple[int, int], max_pixels: int) -> bytes:
    """Return an encoded image as a PNG of `size`, in RGB and upright, see `cover`.

    Raises `InvalidMedia` and `MemoryError`.
    """
    file = BytesIO()
    # A JPEG much larger than the video is decoded at a fraction of its size, which still covers it.
    cover(read(data, media_type, max_pixels=max_pixels, draft=2 * max(size)), size).save(file, "PNG")
    return file.getvalue()


def read(data: bytes, media_type: str, *, max_pixels: int, draft: int | None = None) -> "Image.Image":
    """Return an encoded image in RGB and upright. With `draft`, a JPEG may be smaller, with sides of at least that.

    Raises `InvalidMedia` and `MemoryError`.
    """
    from PIL import Image, ImageOps

    from gateway.media.encoded_image import PILLOW_FORMATS

    images.verify_image(data, media_type, max_pixels=max_pixels, pixels_left=max_pixels)
    with Image.open(BytesIO(data), formats=PILLOW_FORMATS) as image:
        if draft:
            image.draft("RGB", (draft, draft))
        picture = ImageOps.exif_transpose(image)
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            backed = Image.new("RGB", picture.size, _BACKGROUND)
            backed.paste(picture, mask=picture.getchannel("A"))
            picture = backed
        return picture.convert("RGB")
