"""Pictures in sizes that the model that drew them does not draw."""

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
"""Of JPEG and WebP, where the request does not say."""
_MAX_PIXELS = 1 << 25
"""Of a picture that is scaled: twice 4,096 each way. It is decoded here, whoever wrote the model."""


async def resize_images(events: AsyncGenerator[ImageEvent], request: GenerateImage) -> AsyncGenerator[ImageEvent]:
    """Yield the same events, their pictures in the size of `request`.

    Raises `ModelFailed` for what is no picture, or too much of one.
    """
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Image | PartialImage):
                try:
                    event = replace(event, data=await asyncio.to_thread(_resize, event.data, request))
                except (OSError, SyntaxError, ValueError, InvalidMedia):
                    raise ModelFailed("The model gave what is no picture.") from None
            yield event


def _resize(data: bytes, request: GenerateImage) -> bytes:
    from PIL import Image as Pillow

    size = (request.width or 0, request.height or 0)
    drawn = encoded_image.image_size(data)
    if 0 in size or drawn == size:
        return data
    if drawn[0] * drawn[1] > _MAX_PIXELS:
        raise ValueError(f"the picture has {drawn[0]} x {drawn[1]} pixels")
    scans.check(data)
    file = BytesIO()
    with Pillow.open(BytesIO(data)) as image:
        scaled = image.resize(size, Pillow.Resampling.LANCZOS)
        scaled.save(
            file, request.output_format, quality=_DEFAULT_QUALITY if request.quality is None else request.quality
        )
    return file.getvalue()
