"""Image requests of the official `openai` client."""

import base64

import openai
import pytest
from openai.types import ImageEditCompletedEvent, ImageGenCompletedEvent, ImageGenPartialImageEvent

from tests.fakes.image_model import color_of_seed
from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.image_requests import encoded_image, open_image

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE, MASK = encoded_image(), encoded_image(mode="RGBA", colour=(0, 0, 0, 0))


async def test_generate(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        answer = await client.images.generate(
            model="shapes",
            prompt="a red circle",
            n=2,
            size="1024x1024",
            quality="hd",
            style="vivid",
            response_format="b64_json",
            user="u",
            extra_body={"seed": 6},
        )
    assert answer.data
    assert [open_image(base64.b64decode(image.b64_json or "")).getpixel((0, 0)) for image in answer.data] == [
        color_of_seed(6),
        color_of_seed(7),
    ]
    assert (answer.size, answer.quality, answer.output_format) == ("1024x1024", "high", "png")
    assert answer.usage and answer.usage.total_tokens == 0
    assert answer.data[0].revised_prompt is None and answer.data[0].url is None


@for_each_dialect
async def test_generate_several(gateway: RunningGateway, dialect: WireDialect) -> None:
    async with gateway.client(base_url=gateway.url + dialect.prefix) as client:
        answer = await client.images.generate(
            model="shapes", prompt="a red circle", n=2, response_format="b64_json", size="128x128"
        )
    encoded = [image.b64_json or "" for image in answer.data or ()]
    assert all(image.startswith(dialect.base64_prefix) for image in encoded)
    data = [base64.b64decode(image.removeprefix(dialect.base64_prefix)) for image in encoded]
    assert [open_image(image).size for image in data] == [(128, 128)] * 2


async def test_generate_as_url(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        answer = await client.images.generate(model="shapes", prompt="a red circle")
    assert answer.data and answer.data[0].url
    assert answer.data[0].url.startswith(f"{gateway.url}/files/") and answer.data[0].b64_json is None


async def test_generate_streamed(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        stream = await client.images.generate(model="shapes", prompt="x", stream=True, partial_images=2)
        events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    previews = [event for event in events if isinstance(event, ImageGenPartialImageEvent)]
    assert [event.partial_image_index for event in previews] == [0, 1]
    assert open_image(base64.b64decode(events[-1].b64_json)).size == (128, 128)
    ImageGenCompletedEvent.model_validate(events[-1].model_dump(), strict=True)


async def test_edit(gateway: RunningGateway, triton: FakeTriton) -> None:
    async with gateway.client() as client:
        answer = await client.images.edit(
            model="shapes",
            prompt="a beret",
            image=("a.png", PICTURE),
            mask=("m.png", MASK),
            n=2,
            size="192x128",
            response_format="b64_json",
            extra_body={"strength": 0.5},
        )
    assert answer.data and len(answer.data) == 2 and answer.size == "192x128"
    assert (triton.calls[-1].tensors["image"], triton.calls[-1].tensors["mask"]) == ([PICTURE], [MASK])
    assert triton.calls[-1].tensors["strength"] == [0.5]


@for_each_dialect
async def test_edit_as_url(gateway: RunningGateway, dialect: WireDialect) -> None:
    async with gateway.client(base_url=gateway.url + dialect.prefix) as client:
        answer = await client.images.edit(model="shapes", prompt="a star", image=PICTURE, response_format="url")
    assert answer.data and answer.data[0].url


async def test_edit_streamed(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        stream = await client.images.edit(model="shapes", prompt="x", image=PICTURE, stream=True, partial_images=1)
        events = [event async for event in stream]
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    ImageEditCompletedEvent.model_validate(events[-1].model_dump(), strict=True)


async def test_several_images_reach_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    async with gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.images.edit(model="shapes", prompt="x", image=[PICTURE, encoded_image(colour=9)])
    assert (refusal.value.param, refusal.value.code) == ("image", "unsupported_parameter")
    assert len(triton.calls[-1].tensors["image"]) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_variations(gateway: RunningGateway, triton: FakeTriton) -> None:
    async with gateway.client() as client:
        answer = await client.images.create_variation(model="shapes", image=PICTURE, n=2, response_format="b64_json")
    assert answer.data and len(answer.data) == 2
    assert triton.calls[-1].tensors["image"] == [PICTURE]


@for_each_dialect
async def test_failures(gateway: RunningGateway, dialect: WireDialect) -> None:
    async with gateway.client(base_url=gateway.url + dialect.prefix) as client:
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.images.generate(model="shapes", prompt="x", size="256x256")
        assert refusal.value.param == "size"
        with pytest.raises(openai.NotFoundError):
            await client.images.generate(model="dall-e-2", prompt="x")
        with pytest.raises(openai.BadRequestError):
            await client.images.generate(model="hello", prompt="x")


async def test_a_chat_with_a_model_that_draws(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        answer = await client.chat.completions.create(
            model="shapes", messages=[{"role": "user", "content": "a circle"}]
        )
    assert (answer.choices[0].message.content or "").startswith(f"![image]({gateway.url}/files/")
