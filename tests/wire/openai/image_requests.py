"""Image requests of OpenAI's dialect, and parsing of their responses."""

import base64
import io
import json
from typing import Any

import httpx
from PIL import Image

from tests.fakes.triton import FakeTriton
from tests.fakes.triton_messages import InferCall
from tests.wire.gateway_server import RunningGateway

GENERATIONS, EDITS, VARIATIONS = "/v1/images/generations", "/v1/images/edits", "/v1/images/variations"


def encoded_image(size: tuple[int, int] = (128, 128), mode: str = "RGB", form: str = "PNG", **options: Any) -> bytes:
    """Return an encoded image of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, options.pop("colour", 7)).save(file, form, **options)
    return file.getvalue()


def open_image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def decode_images(response: httpx.Response) -> list[Image.Image]:
    """Return the images of a successful response in base64."""
    assert response.status_code == 200, response.text
    return [open_image(base64.b64decode(datum["b64_json"])) for datum in response.json()["data"]]


async def post_image_request(
    gateway: RunningGateway, model: str = "shapes", path: str = GENERATIONS, **body: Any
) -> httpx.Response:
    fields = {"prompt": "a red circle", "response_format": "b64_json", **body}
    return await gateway.http.post(path, json={"model": model, **fields})


async def captured_call(
    gateway: RunningGateway, triton: FakeTriton, model: str = "shapes", path: str = GENERATIONS, **body: Any
) -> InferCall:
    """Send a request that must succeed, and return the call that the model got."""
    before = len(triton.calls)
    response = await post_image_request(gateway, model, path, **body)
    assert response.status_code == 200, response.text
    (call,) = triton.calls[before:]
    return call


def scalar_tensors(call: InferCall) -> dict[str, Any]:
    """Return the value of each tensor with one number or text; without the tensors of images."""
    scalars = {name: values[0] for name, values in call.tensors.items() if name not in ("image", "mask")}
    return {name: value.decode() if isinstance(value, bytes) else value.item() for name, value in scalars.items()}


def named_events(response: httpx.Response) -> list[tuple[str, Any]]:
    """Return the name and the parsed data of each event of a successful stream."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    *blocks, last = response.text.removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events
