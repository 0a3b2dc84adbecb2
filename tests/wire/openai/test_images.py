"""Image generation: the tensors of the model, and the responses."""

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.image_model import DEFAULT_SEED, color_of_seed
from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import (
    GENERATIONS,
    captured_call,
    decode_images,
    named_events,
    open_image,
    post_image_request,
    scalar_tensors,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_request_with_only_a_prompt(gateway: RunningGateway, triton: FakeTriton) -> None:
    call = await captured_call(gateway, triton)
    assert scalar_tensors(call) == {"prompt": "a red circle", "num_images": 1, "output_format": "png"}


@pytest.mark.parametrize(
    ("fields", "tensors"),
    [
        ({"n": 3, "seed": 5}, {"num_images": 3, "seed": 5}),
        ({"seed": 2**63 - 1}, {"seed": 2**63 - 1}),
        ({"size": "192x128"}, {"width": 192, "height": 128}),
        ({"size": "auto"}, {}),
        ({"size": "", "width": 0, "height": 0, "step": 0, "response_format": "b64_json"}, {}),
        ({"width": 192, "height": 128}, {"width": 192, "height": 128}),
        ({"width": 192}, {"width": 192}),
        ({"size": "192x128", "width": 192, "height": 128}, {"width": 192, "height": 128}),
        ({"steps": 7}, {"steps": 7}),
        ({"step": 7}, {"steps": 7}),
        ({"quality": "low"}, {"steps": 10}),
        ({"quality": "hd"}, {"steps": 40}),
        ({"quality": "standard"}, {}),
        ({"quality": "low", "steps": 30}, {"steps": 30}),
        ({"guidance_scale": 2.5, "negative_prompt": "blue"}, {"guidance_scale": 2.5, "negative_prompt": "blue"}),
        ({"output_format": "webp", "output_compression": 40}, {"output_format": "webp", "quality": 40}),
        ({"output_format": "png", "output_compression": 100}, {}),
        ({"style": "vivid", "user": "u", "moderation": "low", "background": "opaque", "wallet": "x"}, {}),
    ],
    ids=str,
)
async def test_fields_reach_the_model(gateway: RunningGateway, triton: FakeTriton, fields: dict, tensors: dict) -> None:
    call = await captured_call(gateway, triton, **fields)
    assert scalar_tensors(call) == {"prompt": "a red circle", "num_images": 1, "output_format": "png"} | tensors


async def test_images_come_in_the_order_of_their_seeds(gateway: RunningGateway) -> None:
    response = await post_image_request(gateway, n=3, seed=2, size="192x128")
    body = response.json()
    assert [image.getpixel((0, 0)) for image in decode_images(response)] == [
        color_of_seed(2),
        color_of_seed(3),
        color_of_seed(4),
    ]
    assert [datum["seed"] for datum in body["data"]] == [2, 3, 4]
    assert (body["size"], body["quality"], body["output_format"], body["background"]) == (
        *("192x128", "medium", "png", "opaque"),
    )
    assert abs(body["created"] - time.time()) < 60
    assert (body["code"], body["message"]) == (0, "success")
    assert body["usage"]["total_tokens"] == 0  # no model that draws counts tokens
    assert "revised_prompt" not in body["data"][0]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_images_have_the_requested_format(gateway: RunningGateway, form: str) -> None:
    (image,) = decode_images(await post_image_request(gateway, output_format=form))
    assert image.format == form.upper()


async def test_the_returned_size_is_that_of_the_image(gateway: RunningGateway) -> None:
    response = await post_image_request(gateway, size="auto")
    assert response.json()["size"] == "128x128" == "{}x{}".format(*decode_images(response)[0].size)


async def test_a_model_without_a_list_of_sizes(gateway: RunningGateway, triton: FakeTriton) -> None:
    assert scalar_tensors(await captured_call(gateway, triton, "any-size", size="512x64"))["width"] == 512
    response = await post_image_request(gateway, "any-size", size="100x64")
    assert response.status_code == 400
    assert "from 64x64 up to 512x256; sides that are multiples of 8" in response.json()["message"]


async def test_the_default_is_the_first_image_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    response = await gateway.http.post(GENERATIONS, json={"prompt": "x", "response_format": "b64_json"})
    assert response.status_code == 200
    assert triton.calls[before].model == "any-size"


async def test_urls_are_the_default_and_lead_to_the_images(gateway: RunningGateway) -> None:
    for fields in ({}, {"response_format": "url"}, {"response_format": ""}):
        response = await gateway.http.post(
            GENERATIONS, json={"model": "shapes", "prompt": "x", "n": 2, "seed": 9, **fields}
        )
        assert response.status_code == 200, response.text
        data = response.json()["data"]
        for at, datum in enumerate(data):
            assert set(datum) == {"url", "seed"} and datum["url"].startswith(gateway.url)
            file = await gateway.http.get(datum["url"])
            assert (file.status_code, file.headers["content-type"]) == (200, "image/png")
            assert open_image(file.content).getpixel((0, 0)) == color_of_seed(9 + at)


@for_each_dialect
async def test_a_url_leads_to_the_image(gateway: RunningGateway, dialect: WireDialect) -> None:
    response = await post_image_request(gateway, path=dialect.generations, response_format="url")
    validate_exactly(dialect.images_answer, response.content)
    (only,) = response.json()["data"]
    assert set(only) == dialect.url_fields and only["url"].startswith(gateway.url)
    file = await gateway.http.get(only["url"])
    assert (file.status_code, file.headers["content-type"]) == (200, "image/png")


async def test_an_alias_of_an_image_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    """The curl example of the standard document, with an alias that the operator has set."""
    body = {"model": "dall-e-3", "prompt": "A cute baby sea otter", "n": 1, "size": "1024x1024"}
    response = await gateway.http.post(GENERATIONS, json=body)
    assert response.status_code == 200, response.text
    assert triton.calls[-1].model == "shapes"
    assert list(response.json()["data"][0]) == ["url", "seed"]
    assert "dall-e-3" not in [model["id"] for model in (await gateway.http.get("/v1/models")).json()["data"]]


async def test_gpt_image_1_returns_base64_by_default(gateway: RunningGateway) -> None:
    (image,) = (await post_image_request(gateway, "gpt-image-1")).json()["data"]
    assert list(image) == ["b64_json", "seed"]
    (image,) = (await post_image_request(gateway, "gpt-image-1", response_format="url")).json()["data"]
    assert list(image) == ["url", "seed"]


@pytest.mark.parametrize(
    ("size", "generated", "form"),
    [
        ("512x512", (1024, 1024), "png"),
        ("256x256", (128, 128), "png"),
        ("1792x1024", (192, 128), "jpeg"),
        ("300x200", (192, 128), "webp"),
        ("128x128", (128, 128), "png"),
    ],
)
async def test_an_alias_offers_the_sizes_of_the_named_model(
    gateway: RunningGateway, triton: FakeTriton, size: str, generated: tuple[int, int], form: str
) -> None:
    fields: dict[str, Any] = {"size": size, "seed": 3, "output_format": form}
    response = await post_image_request(gateway, "dall-e-3", **fields)
    (image,) = decode_images(response)
    assert (
        scalar_tensors(triton.calls[-1])["width"] == generated[0]
        and scalar_tensors(triton.calls[-1])["height"] == generated[1]
    )
    assert "{}x{}".format(*image.size) == response.json()["size"] == size
    assert image.format == form.upper()
    pixel = image.getpixel((9, 9))
    assert isinstance(pixel, tuple)
    assert all(abs(a - b) < 8 for a, b in zip(pixel, color_of_seed(3), strict=True))
    if generated != tuple(map(int, size.split("x"))):
        assert (await post_image_request(gateway, "shapes", **fields)).status_code == 400


async def test_partial_images_have_the_size_of_the_image(gateway: RunningGateway) -> None:
    body = {"model": "dall-e-3", "prompt": "x", "size": "256x256", "stream": True, "partial_images": 1}
    events = named_events(await gateway.http.post(GENERATIONS, json=body))
    assert [data["size"] for _, data in events] == ["256x256"] * 2


@pytest.mark.parametrize("size", ["1x1", "63x64", "9999x9999", "99999x99999"])
async def test_an_alias_does_not_allow_every_size(gateway: RunningGateway, size: str) -> None:
    response = await post_image_request(gateway, "dall-e-3", size=size)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "size")


async def test_components_of_a_model_are_not_listed(gateway: RunningGateway) -> None:
    listed = {model["id"]: model for model in (await gateway.http.get("/v1/models")).json()["data"]}
    assert "shapes-denoiser" not in listed
    assert listed["shapes"]["url"] == f"{gateway.url}{GENERATIONS}"


async def test_streams(gateway: RunningGateway) -> None:
    response = await gateway.http.post(
        GENERATIONS, json={"model": "shapes", "prompt": "x", "n": 2, "stream": True, "partial_images": 2, "seed": 1}
    )
    events = named_events(response)
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert [name for name, _ in events] == [partial] * 4 + [completed] * 2
    assert all(data["type"] == name for name, data in events)
    numbers = [(data["index"], data["partial_image_index"]) for name, data in events if name == partial]
    assert numbers == [(0, 0), (1, 0), (0, 1), (1, 1)]
    last = events[-1][1]
    assert open_image(base64.b64decode(last["b64_json"])).getpixel((0, 0)) == color_of_seed(2)
    assert (last["index"], last["seed"], last["size"], last["quality"]) == (1, 2, "128x128", "medium")
    assert abs(last["created_at"] - time.time()) < 60


async def test_a_stream_without_partial_images_has_one_event_for_each_image(gateway: RunningGateway) -> None:
    response = await gateway.http.post(GENERATIONS, json={"model": "shapes", "prompt": "x", "stream": True})
    ((name, data),) = named_events(response)
    assert (name, data["seed"]) == ("image_generation.completed", DEFAULT_SEED)


@pytest.mark.parametrize(
    ("path", "stream"), [(GENERATIONS, False), (GENERATIONS, True), (f"/tritonic{GENERATIONS}", False)]
)
async def test_a_disconnect_cancels_the_image_model(
    gateway: RunningGateway, triton: FakeTriton, path: str, stream: bool
) -> None:
    before = len(triton.calls)
    body = {"model": "slow-painter", "prompt": "x", "stream": stream}
    asking = asyncio.create_task(gateway.http.post(path, json=body))
    await triton.call("slow-painter", before)
    await asyncio.sleep(0.12)
    asking.cancel()
    await triton.cancelled_call("slow-painter", before)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("short-painter", "The model returned 0 images of 1."),
        ("blotter", "The model returned data that is not an image."),
        ("broken-painter", "The engine stopped."),
    ],
)
async def test_models_that_fail(gateway: RunningGateway, model: str, sentence: str) -> None:
    response = await post_image_request(gateway, model)
    assert (response.status_code, response.json()["message"]) == (502, sentence)


async def test_paths_are_returned_where_the_setting_says_so(triton: FakeTriton, tmp_path: Path) -> None:
    """The document for nodes on the same machine: its responses name local files."""
    folder = tmp_path / "photos"
    settings: dict[str, Any] = {"files": str(folder), "files_style": "path", "model_aliases": {"SuperImage": "shapes"}}
    async with run_gateway(triton.url, **settings) as gateway:
        body = {"model": "SuperImage", "prompt": "A cute baby sea otter", "n": 2, "size": "1024x1024"}
        response = await gateway.http.post(GENERATIONS, json=body)
    assert response.status_code == 200, response.text
    paths = [Path(datum["url"]) for datum in response.json()["data"]]
    assert len(set(paths)) == 2 and {path.parent for path in paths} == {folder}
    assert [open_image(path.read_bytes()).size for path in paths] == [(1024, 1024)] * 2
