"""Pictures of models, brought to another size: also where a model sends what no model should."""

from collections.abc import AsyncGenerator
from io import BytesIO

import pytest
from PIL import Image as Pillow

from gateway.errors import ModelFailed
from gateway.media.resize import resize_images
from gateway.operations.generate_image import GenerateImage, Image, ImageEvent
from tests.unit.gateway.media.media_samples import image_bytes


async def resize_to(data: bytes) -> bytes:
    async def events() -> AsyncGenerator[ImageEvent]:
        yield Image(0, data, 1)

    request = GenerateImage(model="m", prompt="p", width=20, height=10, allow_resize=True)
    (event,) = [event async for event in resize_images(events(), request)]
    assert isinstance(event, Image)
    return event.data


def blank(side: int) -> bytes:
    out = BytesIO()
    Pillow.new("1", (side, side)).save(out, "PNG")
    return out.getvalue()


async def test_an_image_is_resized():
    assert Pillow.open(BytesIO(await resize_to(image_bytes()))).size == (20, 10)
    assert await resize_to(image_bytes(size=(20, 10))) != b""


@pytest.mark.parametrize("data", [b"no picture", image_bytes()[:60], blank(6000), blank(15_000)])
async def test_invalid_images_of_a_model_are_failures(data: bytes):
    with pytest.raises(ModelFailed, match="that is not an image"):
        await resize_to(data)
