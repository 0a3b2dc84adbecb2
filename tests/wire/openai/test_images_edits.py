"""Image edits: the sources of images, as JSON and as forms."""

import asyncio
import base64
import json
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.fakes.triton import FakeTriton
from tests.wire.conftest import MAX_BODY_BYTES
from tests.wire.dialects import WireDialect, for_each_dialect
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import (
    EDITS,
    VARIATIONS,
    captured_call,
    decode_images,
    encoded_image,
    named_events,
    open_image,
    post_image_request,
    scalar_tensors,
)
from tests.wire.openai.text_requests import check_error, check_error_body

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE, MASK = encoded_image(), encoded_image(mode="RGBA", colour=(0, 0, 0, 0))
BARE = base64.b64encode(PICTURE).decode()
URL = f"data:image/png;base64,{BARE}"


@pytest.mark.parametrize(
    "fields",
    [
        {"image": BARE},
        {"image": URL},
        {"image": [URL]},
        {"image": {"image_url": URL}},
        {"images": [{"image_url": URL}]},
        {"images": [{"image_url": {"url": URL}}]},
    ],
    ids=["base64", "data-url", "list", "object", "images", "nested"],
)
@for_each_dialect
async def test_json(gateway: RunningGateway, triton: FakeTriton, dialect: WireDialect, fields: dict) -> None:
    call = await captured_call(
        gateway, triton, path=dialect.edits, **fields, mask=base64.b64encode(MASK).decode(), strength=0.5, n=2
    )
    assert (call.tensors["image"], call.tensors["mask"]) == ([PICTURE], [MASK])
    assert scalar_tensors(call) == {"prompt": "a red circle", "num_images": 2, "output_format": "png", "strength": 0.5}


async def test_forms(gateway: RunningGateway, triton: FakeTriton) -> None:
    before = len(triton.calls)
    response = await gateway.http.post(
        EDITS,
        data={
            "model": "shapes",
            "prompt": "ein größeres 🎈",
            "n": "2",
            "seed": "4",
            "guidance_scale": "2.5",
            "size": "",
        }
        | {"response_format": "b64_json", "stream": "false", "quality": "low", "size": ""},
        files={"image": ("a.png", PICTURE, "image/png"), "mask": ("m.png", MASK, "image/png")},
    )
    assert len(decode_images(response)) == 2
    (call,) = triton.calls[before:]
    assert (call.tensors["image"], call.tensors["mask"]) == ([PICTURE], [MASK])
    assert scalar_tensors(call) == {
        **{"prompt": "ein größeres 🎈", "num_images": 2, "seed": 4, "guidance_scale": 2.5, "output_format": "png"},
        "steps": 10,
    }


@pytest.mark.parametrize("name", ["image[]", "image"])
@for_each_dialect
async def test_several_images_of_a_form_reach_the_model_which_refuses_them(
    gateway: RunningGateway, triton: FakeTriton, dialect: WireDialect, name: str
) -> None:
    files = [(name, ("a.png", PICTURE))]
    form = {"model": "shapes", "prompt": "x", "response_format": "b64_json"}
    response = await gateway.http.post(dialect.edits, data=form, files=files)
    assert response.status_code == 200, response.text
    validate_exactly(dialect.images_answer, response.content)
    (edited,) = response.json()["data"]
    assert edited["b64_json"].startswith(dialect.base64_prefix)
    assert open_image(base64.b64decode(edited["b64_json"].removeprefix(dialect.base64_prefix))).size == (128, 128)
    assert triton.calls[-1].tensors["image"] == [PICTURE]
    files.append((name, ("b.png", encoded_image(colour=9))))
    response = await gateway.http.post(dialect.edits, data=form, files=files)
    sentence = check_error(response, 400, code="unsupported_parameter", param="image")
    assert "one picture" in sentence
    assert triton.calls[-1].tensors["image"] == [PICTURE, encoded_image(colour=9)]


async def test_a_form_part_with_an_image_type_is_a_file(gateway: RunningGateway, triton: FakeTriton) -> None:
    form: dict[str, Any] = {"model": (None, "shapes"), "prompt": (None, "x"), "image": (None, PICTURE, "image/png")}
    before = len(triton.calls)
    assert len(decode_images(await gateway.http.post(EDITS, files=form | {"response_format": (None, "b64_json")}))) == 1
    (call,) = triton.calls[before:]
    assert call.tensors["image"] == [PICTURE]


async def test_an_image_as_text_of_a_form(gateway: RunningGateway, triton: FakeTriton) -> None:
    form = {"model": (None, "shapes"), "prompt": (None, "x"), "image": (None, URL), "response_format": (None, "url")}
    response = await gateway.http.post(EDITS, files=form)
    assert response.status_code == 200, response.text
    assert triton.calls[-1].tensors["image"] == [PICTURE]


async def test_generated_images_can_be_edited_by_url(gateway: RunningGateway, triton: FakeTriton) -> None:
    url = (await post_image_request(gateway, response_format="url", seed=8)).json()["data"][0]["url"]
    call = await captured_call(gateway, triton, path=EDITS, image=url)
    assert call.tensors["image"] == [(await gateway.http.get(url)).content]
    # An address that is not signed is one like any other, of a machine that callers may not reach.
    check_error(await post_image_request(gateway, path=EDITS, image=url[:-4]), 400, param="image")


async def test_a_large_form(gateway: RunningGateway, triton: FakeTriton) -> None:
    large = encoded_image((3000, 2000), form="BMP")
    files = {"image": ("a.bmp", large)}
    response = await gateway.http.post(EDITS, data={"model": "shapes", "prompt": "x"}, files=files)
    assert response.status_code == 200, response.text
    assert triton.calls[-1].tensors["image"] == [large]


async def test_variations(gateway: RunningGateway, triton: FakeTriton) -> None:
    response = await gateway.http.post(
        VARIATIONS, files={"image": ("a.png", PICTURE)}, data={"model": "shapes", "n": "2"}
    )
    assert len(response.json()["data"]) == 2
    assert triton.calls[-1].tensors["image"] == [PICTURE] and triton.calls[-1].prompt == ""
    assert scalar_tensors(triton.calls[-1])["strength"] == 0.5
    call = await captured_call(gateway, triton, path=VARIATIONS, image=BARE, strength=0.25)
    assert scalar_tensors(call) == {"prompt": "", "num_images": 1, "output_format": "png", "strength": 0.25}


async def test_streams_of_edits(gateway: RunningGateway) -> None:
    body = {"model": "shapes", "prompt": "x", "image": BARE, "stream": True, "partial_images": 1}
    events = named_events(await gateway.http.post(EDITS, json=body))
    assert [name for name, _ in events] == ["image_edit.partial_image", "image_edit.completed"]


async def test_a_model_without_edits_names_its_operations(gateway: RunningGateway) -> None:
    sentence = check_error(
        await post_image_request(gateway, "paint-only", EDITS, image=BARE),
        400,
        code="unsupported_parameter",
        param="model",
    )
    assert "cannot edit images; it can generate images" in sentence


def _exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded_image((128, 64), form="JPEG", exif=exif)


def _sixteen_bits() -> bytes:
    rows = b"".join(b"\x00" + b"\x12\x34" * 3 * 128 for _ in range(128))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 128, 128, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _animated() -> bytes:
    return encoded_image(form="GIF", save_all=True, append_images=[Image.new("RGB", (128, 128), 90)])


@pytest.mark.parametrize(
    "data",
    [
        encoded_image(form="JPEG", mode="CMYK", colour=(1, 2, 3, 4)),
        _exif_rotated(),
        MASK,
        encoded_image(mode="LA", colour=(5, 6)),
        _sixteen_bits(),
        encoded_image(mode="I;16"),
        encoded_image(mode="P"),
        encoded_image(mode="1", colour=1),
        _animated(),
        encoded_image(form="WEBP"),
        encoded_image((1, 1)),
    ],
    ids=["cmyk", "exif", "alpha", "grey-alpha", "16-bit", "16-bit-grey", "palette", "bits", "animated", "webp", "dot"],
)
async def test_unusual_images_are_passed_on_unchanged(gateway: RunningGateway, triton: FakeTriton, data: bytes) -> None:
    response = await gateway.http.post(EDITS, data={"model": "shapes", "prompt": "x"}, files={"image": ("a", data)})
    assert response.status_code == 200, response.text
    assert triton.calls[-1].tensors["image"] == [data]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PICTURE[: len(PICTURE) // 2], "damaged or truncated"),
        (PICTURE[:40] + bytes(20) + PICTURE[60:], "damaged or truncated"),
        (b"no picture at all", "text"),
        (b"", "empty"),
        (b"%PDF-1.7 \n", "application/pdf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text"),
    ],
    ids=["cut", "broken", "text", "empty", "pdf", "svg"],
)
@pytest.mark.parametrize("body_format", ["form", "json"])
async def test_files_that_are_no_images_are_refused(
    gateway: RunningGateway, data: bytes, reason: str, body_format: str
) -> None:
    fields = {"model": "shapes", "prompt": "x"}
    if body_format == "form":
        response = await gateway.http.post(EDITS, data=fields, files={"image": ("a.png", data)})
    else:
        # An empty text is no picture, and a field that is not there.
        encoded = base64.b64encode(data).decode() or "data:image/png;base64,"
        response = await gateway.http.post(EDITS, json={**fields, "image": encoded})
    assert reason in check_error(response, 400, param="image")


async def test_an_image_of_too_many_pixels_is_refused(gateway: RunningGateway) -> None:
    data = encoded_image((8000, 6400), mode="L")
    response = await gateway.http.post(EDITS, data={"model": "shapes", "prompt": "x"}, files={"image": ("a.png", data)})
    assert "8000 × 6400" in check_error(response, 400, param="image")  # noqa: RUF001


async def test_a_mask_of_another_size_is_refused(gateway: RunningGateway) -> None:
    fields = {"image": BARE, "mask": base64.b64encode(encoded_image((64, 64))).decode()}
    assert "another size" in check_error(await post_image_request(gateway, path=EDITS, **fields), 400, param="mask")


async def test_the_body_limit_applies_to_forms(narrow: RunningGateway) -> None:
    form = narrow.http.build_request("POST", EDITS, files={"image": ("a.png", bytes(MAX_BODY_BYTES))})
    headers = {"content-type": form.headers["content-type"]}
    response = await narrow.http.post(EDITS, content=await form.aread(), headers=headers)
    check_error(response, 413, code="request_too_large")


async def test_a_form_that_does_not_arrive_times_out(narrow: RunningGateway) -> None:
    address = httpx.URL(narrow.url)
    lines = (
        f"POST {EDITS} HTTP/1.1",
        "Host: localhost",
        "Content-Type: multipart/form-data; boundary=b",
        "Content-Length: 100",
    )
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write("\r\n".join((*lines, "", "--b\r\n")).encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # to the end: the gateway closes
        writer.close()
    status, *headers = head.decode().lower().split("\r\n")
    assert status.startswith("http/1.1 408 ") and "content-type: application/json" in headers
    assert any(header.startswith("x-request-id: ") for header in headers)
    check_error_body(json.loads(body), "invalid_request_error", "request_timeout")


async def test_a_form_needs_a_key_too(guarded: RunningGateway) -> None:
    response = await guarded.http.post(EDITS, data={"model": "shapes", "prompt": "x"}, files={"image": ("a", PICTURE)})
    check_error(response, 401, "authentication_error", "invalid_api_key")


FORM = "multipart/form-data; boundary=b"
FIELD = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"--b--"),
        ("multipart/form-data; boundary=", b"--b--"),
        (FORM, b"no form"),
        (FORM, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        (FORM, FIELD + b"x"),
        (FORM, b""),
        (FORM + "; charset=utf-7", FIELD + b"+2AA-\r\n--b--\r\n"),
        (FORM + "; charset=rot13", FIELD + b"x\r\n--b--\r\n"),
        (FORM, (FIELD + b"x\r\n") * 99 + b"--b--"),
    ],
    ids=["no-boundary", "empty-boundary", "text", "nameless", "cut", "empty", "surrogate", "charset", "many"],
)
async def test_broken_forms(gateway: RunningGateway, content_type: str, content: bytes) -> None:
    response = await gateway.http.post(EDITS, content=content, headers={"content-type": content_type})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "http://localhost/a.png",
        "http://10.0.0.1/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
    ],
)
async def test_private_addresses_are_refused(gateway: RunningGateway, url: str) -> None:
    check_error(await post_image_request(gateway, path=EDITS, image=url), 400, param="image")
    check_error(await post_image_request(gateway, path=EDITS, image=BARE, mask=url), 400, param="mask")


async def test_file_ids_are_refused(gateway: RunningGateway) -> None:
    response: httpx.Response = await post_image_request(gateway, path=EDITS, images=[{"file_id": "file-1"}])
    check_error(response, 400, code="unsupported_parameter", param="images.file_id")
