"""Invalid image requests: the error names the field, and no model gets the request."""

import base64
from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import EDITS, post_image_request
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNSUPPORTED = "unsupported_parameter"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 11}, "n", "invalid_value"),
        ({"n": "two"}, "n", "invalid_value"),
        ({"n": 1.5}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"size": "1x1"}, "size", UNSUPPORTED),
        ({"size": "1024x1025"}, "size", UNSUPPORTED),
        ({"size": "1024"}, "size", "invalid_value"),
        ({"size": "-5x5"}, "size", "invalid_value"),
        ({"size": "0x128"}, "size", "invalid_value"),
        ({"size": "128x128x128"}, "size", "invalid_value"),
        ({"size": "99999999999999999999x1"}, "size", "invalid_value"),
        ({"size": "\u0661\u0662\u0668x128"}, "size", "invalid_value"),
        ({"size": 128}, "size", "invalid_value"),
        ({"frame_count": 4}, "frame_count", UNSUPPORTED),
        ({"frame_duration_ms": 100}, "frame_duration_ms", UNSUPPORTED),
        ({"svg": {"model": "m"}}, "svg", UNSUPPORTED),
        ({"width": -1}, "width", "invalid_value"),
        ({"width": 7, "height": 128}, "size", UNSUPPORTED),
        ({"size": "128x128", "width": 192}, "size", "invalid_value"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": " \n\t"}, "prompt", "invalid_value"),
        ({"prompt": "a" * 100_000}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "invalid_value"),
        ({"prompt": ["a"]}, "prompt", "invalid_value"),
        ({"negative_prompt": "a" * 100_000}, "negative_prompt", "invalid_value"),
        ({"response_format": "png"}, "response_format", "invalid_value"),
        ({"response_format": "path"}, "response_format", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"output_compression": 101, "output_format": "jpeg"}, "output_compression", "invalid_value"),
        ({"output_compression": 50}, "output_compression", "invalid_value"),
        ({"quality": "best"}, "quality", "invalid_value"),
        ({"style": "baroque"}, "style", "invalid_value"),
        ({"background": "transparent"}, "background", UNSUPPORTED),
        ({"background": "red"}, "background", "invalid_value"),
        ({"markup": "x"}, "markup", UNSUPPORTED),
        ({"strength": 0.5}, "strength", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"steps": 51}, "steps", UNSUPPORTED),
        ({"steps": -1}, "steps", "invalid_value"),
        ({"guidance_scale": -1}, "guidance_scale", "invalid_value"),
        ({"guidance_scale": "strong"}, "guidance_scale", "invalid_value"),
        ({"partial_images": 1}, "partial_images", "invalid_value"),
        ({"model": "hello"}, "model", UNSUPPORTED),
        ({"model": 7}, "model", "invalid_value"),
    ],
    ids=lambda value: str(value)[:50],
)
@for_each_dialect
async def test_invalid_fields_are_named(
    gateway: RunningGateway, triton: FakeTriton, dialect: WireDialect, fields: dict[str, Any], param: str, code: str
) -> None:
    before = len(triton.calls)
    response = await post_image_request(gateway, path=dialect.generations, **{"model": "shapes", **fields})
    check_error(response, 400, code=code, param=param)
    assert len(triton.calls) == before


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"stream": True, "response_format": "url"}, "response_format"),
    ],
)
async def test_invalid_fields_of_streams_are_named(
    gateway: RunningGateway, triton: FakeTriton, fields: dict[str, Any], param: str
) -> None:
    before = len(triton.calls)
    check_error(await post_image_request(gateway, **fields), 400, code="invalid_value", param=param)
    assert len(triton.calls) == before


async def test_available_sizes_are_named(gateway: RunningGateway) -> None:
    sentence = check_error(await post_image_request(gateway, size="640x480"), 400, code=UNSUPPORTED, param="size")
    assert "640x480" in sentence and "128x128, 192x128, 1024x1024" in sentence


async def test_an_unknown_model(gateway: RunningGateway) -> None:
    check_error(await post_image_request(gateway, "nobody"), 404, code="model_not_found", param="model")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "image", "invalid_value"),
        ({"image": ""}, "image", "invalid_value"),
        ({"image": []}, "image", "invalid_value"),
        ({"image": 7}, "image", "invalid_value"),
        ({"image": {}}, "image.image_url", "invalid_value"),
        ({"image": ["eA=="] * 17}, "image", "invalid_value"),
        ({"image": "http://127.0.0.1/x.png"}, "image", "invalid_value"),
        ({"image": "no base64!"}, "image", "invalid_value"),
        ({"image": base64.b64encode(b"just text").decode()}, "image", "invalid_value"),
        ({"image": "not base64!"}, "image", "invalid_value"),
        ({"image": "data:image/png;base64"}, "image", "invalid_value"),
        ({"image": "data:image/png;base64,???"}, "image", "invalid_value"),
        ({"image": "aGVsbG8gd29ybGQ="}, "image", "invalid_value"),
        ({"image": ["aGVsbG8gd29ybGQ=", "x"]}, "image[", "invalid_value"),
        ({"image": "a", "images": ["a"]}, "images", "invalid_value"),
        ({"image": "a", "mask": ["a", "b"]}, "mask", "invalid_value"),
        ({"image": "a", "strength": 1.5}, "strength", "invalid_value"),
    ],
    ids=lambda value: str(value)[:50],
)
@for_each_dialect
async def test_invalid_fields_of_edits_are_named(
    gateway: RunningGateway, triton: FakeTriton, dialect: WireDialect, fields: dict[str, Any], param: str, code: str
) -> None:
    before = len(triton.calls)
    response = await post_image_request(gateway, path=dialect.edits, **fields)
    assert response.json()["error"]["param"].startswith(param)
    check_error(response, 400, code=code, param=response.json()["error"]["param"])
    assert len(triton.calls) == before


async def test_invalid_numbers_of_forms_are_named(gateway: RunningGateway) -> None:
    for name, value in (("n", "two"), ("n", "0"), ("seed", "1.5"), ("stream", "maybe"), ("strength", "NaN")):
        files = {"image": ("a.png", b"x")}
        form = {"model": "shapes", "prompt": "x", name: value}
        check_error(await gateway.http.post(EDITS, data=form, files=files), 400, code="invalid_value", param=name)


async def test_repeated_fields_of_forms_are_refused(gateway: RunningGateway) -> None:
    form = {"model": "shapes", "prompt": ["x", "y"]}
    response = await gateway.http.post(EDITS, data=form, files={"image": ("a.png", b"x")})
    check_error(response, 400, code="invalid_value", param="prompt")


async def test_chats_do_not_take_forms(gateway: RunningGateway) -> None:
    response = await gateway.http.post("/v1/chat/completions", data={"model": "hello"}, files={"a": ("a", b"x")})
    assert response.status_code == 400


@for_each_dialect
async def test_generations_take_a_form_too(gateway: RunningGateway, dialect: WireDialect) -> None:
    response = await gateway.http.post(
        dialect.generations, files={"model": (None, "shapes"), "prompt": (None, "x"), "n": (None, "2")}
    )
    validate_exactly(dialect.images_answer, response.content)
    assert len(response.json()["data"]) == 2
