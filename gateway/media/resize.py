"""Scaling of generated images to sizes that their model does not generate."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from io import BytesIO

from gateway.errors import ModelFailed
from gateway.media import encoded_image
from gateway.media.decoders import scans
from gateway.media.invalid_media import InvalidMedia
from gateway.operations.generate_image import GenerateImage, Image, ImageEvent, PartialImage

_DEFAULT_QUALITY = 95
"""Quality of JPEG and WebP, if the request has none."""
_MAX_PIXELS = 1 << 25
"""Most pixels of an image to scale, 8,192 x 4,096. The gateway decodes the image and does not trust the model."""


async def resize_images(events: AsyncGenerator[ImageEvent], request: GenerateImage) -> AsyncGenerator[ImageEvent]:
    """Yield the same events, with their images in the size of `request`.

    Raises `ModelFailed` for data that are no image, and for an image that is too large.
    """
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Image | PartialImage):
                try:
                    event = replace(event, data=await asyncio.to_thread(_resize, event.data, request))
                except (OSError, SyntaxError, ValueError, InvalidMedia):
                    raise ModelFailed("The model returned data that is not an image.") from None
            yield event


def _resize(data: bytes, request: GenerateImage) -> bytes:
    from PIL import Image as Pillow

    size = (request.width or 0, request.height or 0)
    generated = encoded_image.image_size(data)
    if 0 in size or generated == size:
        return data
    if generated[0] * generated[1] > _MAX_PIXELS:
        raise ValueError(f"the image has {generated[0]} x {generated[1]} pixels")
    scans.check(data)
    file = BytesIO()
    with Pillow.open(BytesIO(data)) as image:
        scaled = image.resize(size, Pillow.Resampling.LANCZOS)
        scaled.save(
            file, request.output_format, quality=_DEFAULT_QUALITY if request.quality is None else request.quality
        )
    return file.getvalue()
