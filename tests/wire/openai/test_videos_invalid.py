"""Bad requests for videos: what is refused, with which status, and that nothing is queued."""

import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from tests.fakes.video_model import video_file
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.text_requests import check_error
from tests.wire.openai.video_requests import KEY, OTHER_KEY, PATH, create, download, finished, post, run_filming

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(state: Path) -> AsyncIterator[RunningGateway]:
    async with run_filming(state) as (_, running):
        yield running


def data_url(data: bytes, media_type: str = "video/mp4") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def bomb() -> bytes:
    """Return an image of 900 million pixels in a few kilobytes."""
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG", optimize=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": "0"}, "seconds"),
        ({"seconds": "-1"}, "seconds"),
        ({"seconds": "1000000"}, "seconds"),
        ({"seconds": 10**6}, "seconds"),
        ({"seconds": 10**30}, "seconds"),
        ({"seconds": "four"}, "seconds"),
        ({"seconds": 1e-300}, "seconds"),
        ({"seconds": [4]}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": "4.2"}, "seconds"),
        ({"size": "63x64"}, "size"),
        ({"size": "720x1280"}, "size"),
        ({"size": "99999x99999"}, "size"),
        ({"size": "large"}, "size"),
        ({"size": "64 x 64"}, "size"),
        ({"size": "0x0"}, "size"),
        ({"size": 64}, "size"),
        ({"prompt": "x" * 10**6}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"fps": 0}, "fps"),
        ({"fps": 17}, "fps"),
        ({"fps": 1001}, "fps"),
        ({"steps": 51}, "steps"),
        ({"seed": -1}, "seed"),
        ({"strength": 0.5}, "strength"),
        ({"strength": 1.5, "input_reference": "aGk="}, "strength"),
        ({"quality": 101}, "quality"),
        ({"model": "film", "negative_prompt": "x" * 40_000}, "negative_prompt"),
        ({"input_reference": "Hello, this is a text."}, "input_reference"),
        ({"input_reference": "ftp://example.com/a.png"}, "input_reference"),
        ({"input_reference": "http://127.0.0.1:9/a.png"}, "input_reference"),
        ({"input_reference": data_url(b"just a text, which is no picture and no video" * 9)}, "input_reference"),
        ({"input_reference": data_url(b"")}, "input_reference"),
        ({"model": "film-picture"}, "input_reference"),
        ({"model": "film-picture", "input_reference": data_url(video_file((64, 64), 8, 8))}, "input_reference"),
        ({"input_reference": data_url(video_file((64, 64), 8, 8)), "strength": 0.3, "steps": 3}, "strength"),
        ({"input_reference": data_url(video_file((64, 64), 8, 8)), "strength": 0.04}, "strength"),
        ({"input_reference": 7}, "input_reference"),
        ({"input_reference": []}, "input_reference"),
        ({"input_reference": {}}, "input_reference.image_url"),
        ({"input_reference": {"file_id": "file-1"}}, "input_reference.file_id"),
        ({"input_reference": {"image_url": "no picture"}}, "input_reference.image_url"),
        ({"input_reference": [data_url(encoded_image())] * 2}, "input_reference"),
        ({"input_reference": data_url(encoded_image()[:60])}, "input_reference"),
        ({"input_reference": data_url(bomb())}, "input_reference"),
        ({"input_reference": data_url(encoded_image()), "strength": 0.5}, "strength"),
        ({"input_reference": data_url(encoded_image()), "model": "film-text-only"}, "input_reference"),
        ({"input_reference": data_url(video_file()), "model": "film-text-only"}, "input_reference"),
        ({"input_reference": data_url(video_file()[:1900])}, "input_reference"),
        ({"input_reference": data_url(video_file(audio_only=True))}, "input_reference"),
        ({"input_reference": data_url(video_file((16, 16), 3600, 1, codec="mpeg4"))}, "input_reference"),
        ({"input_reference": data_url(video_file((7680, 4320), 1, 8, codec="mpeg4"))}, "input_reference"),
        ({"input_reference": data_url(video_file((64, 64), 48, 8))}, "input_reference"),
        ({"input_reference": data_url(video_file((64, 64), 8, 8)), "seconds": 4}, "seconds"),
    ],
    ids=lambda value: (json.dumps(value) if isinstance(value, dict) else value)[:70],
)
async def test_requests_that_are_refused(gateway: RunningGateway, fields: dict[str, Any], param: str) -> None:
    body = {"prompt": "a red circle", **fields}
    response = await post(gateway, json={name: value for name, value in body.items() if value is not None})
    check_error(response, 400, param=param)


async def test_the_id_of_a_video_as_a_text(gateway: RunningGateway) -> None:
    response = await post(gateway, f"{PATH}/edits", json={"prompt": "x", "video": f"task_{'0' * 32}"})
    check_error(response, 400, param="video")
    assert f'{{"id": "task_{"0" * 32}"}}' in response.json()["error"]["message"]


async def test_models_that_are_no_video_models(gateway: RunningGateway) -> None:
    check_error(
        await post(gateway, json={"prompt": "x", "model": "no-such-film"}), 404, code="model_not_found", param="model"
    )


async def test_forms_that_are_refused(gateway: RunningGateway) -> None:
    async def send(path: str = PATH, **options: Any) -> httpx.Response:
        return await post(gateway, path, **options)

    text = {"input_reference": ("a.txt", b"This is a text. " * 99, "text/plain")}
    check_error(await send(data={"prompt": "x"}, files=text), 400, param="input_reference")
    check_error(await send(data={"prompt": "x", "seconds": "ten"}, files={"a": b""}), 400, param="seconds")
    several = [("input_reference[]", ("a.png", encoded_image(), "image/png"))] * 2
    check_error(await send(data={"prompt": "x"}, files=several), 400, param="input_reference")
    check_error(await send(data={"seconds": "1"}, files=text), 400, param="prompt")
    nested = {"prompt": "x", "input_reference[file_id]": "file-1"}
    check_error(await send(data=nested, files={"a": b""}), 400, param="input_reference.file_id")
    png = {"input_reference": ("a.png", encoded_image(), "image/png")}
    both = {"prompt": "x", "input_reference[image_url]": data_url(encoded_image(), "image/png")}
    check_error(await send(data=both, files=png), 400, param="input_reference")
    unread = {"prompt": "x", "input_reference[0][image_url]": data_url(encoded_image(), "image/png")}
    check_error(await send(data=unread, files={"a": b""}), 400, param="input_reference.image_url")
    check_error(await send(data={"prompt": "x", "prompt[x]": "y"}, files={"a": b""}), 400, param="prompt")
    picture = {"video": ("a.png", encoded_image(), "image/png")}
    check_error(await send(f"{PATH}/edits", data={"prompt": "x"}, files=picture), 400, param="video")
    check_error(await send(f"{PATH}/edits", json={"prompt": "x"}), 400, param="video")
    film = {"video": ("a.mp4", video_file(), "video/mp4")}
    check_error(await send(f"{PATH}/extensions", data={"prompt": "x"}, files=film), 400, param="seconds")
    fields = {"prompt": "x", "seconds": "1", "model": "film-text-only"}
    for path in ("edits", "extensions"):
        check_error(await send(f"{PATH}/{path}", data=fields, files=film), 400, param="video")
    check_error(await send(f"{PATH}/edits", json={"prompt": "x", "video": {"id": 7}}), 400, param="video.id")


async def test_sources_that_cannot_be_used(gateway: RunningGateway) -> None:
    done = await finished(gateway, await create(gateway))
    open_video = await create(gateway, model="film-slow")
    failed = await finished(gateway, await create(gateway, model="film-broken"))
    unable = await finished(gateway, await create(gateway, model="film-text-only"))
    for video, status, code in (
        (open_video, 400, "not_ready"),
        (failed, 400, "not_ready"),
        (unable, 400, "unsupported_parameter"),
        ({"id": "task_" + "0" * 32}, 404, "task_not_found"),
        ({"id": "../etc/passwd"}, 404, None),
        ({"id": "x" * 5000}, 404, "task_not_found"),
    ):
        param = "video" if code == "unsupported_parameter" else None
        remix = await post(gateway, f"{PATH}/{video['id']}/remix", json={"prompt": "blue"})
        check_error(remix, status, code=code, param=param)
        if len(video["id"]) < 99 and "/" not in video["id"]:
            body = {"prompt": "blue", "video": {"id": video["id"]}, "seconds": 1}
            for path in ("edits", "extensions"):
                check_error(await post(gateway, f"{PATH}/{path}", json=body), status, code=code, param=param)
    foreign = f"{PATH}/{done['id']}/remix"
    check_error(await post(gateway, foreign, OTHER_KEY, json={"prompt": "blue"}), 404, code="task_not_found")
    check_error(await post(gateway, foreign, {}, json={"prompt": "blue"}), 401, "authentication_error")
    check_error(await post(gateway, foreign, json={"prompt": ""}), 400, param="prompt")
    check_error(await post(gateway, foreign, json={"prompt": "x", "seconds": 100}), 400, param="seconds")
    for method in ("get", "delete"):
        send = getattr(gateway.http, method)
        check_error(await send(f"{PATH}/{done['id']}", headers=OTHER_KEY), 404, code="task_not_found")
    check_error(await download(gateway, open_video), 400, code="not_ready")
    check_error(await download(gateway, open_video, variant="thumbnail"), 400, code="not_ready")
    await gateway.http.delete(f"{PATH}/{open_video['id']}", headers=KEY)


async def test_a_file_that_has_expired(gateway: RunningGateway, state: Path) -> None:
    done = await finished(gateway, await create(gateway))
    assert (await download(gateway, done, variant="thumbnail")).status_code == 200
    for file in (state / "files").glob("*.mp4"):
        file.unlink()
    for variant in ("video", "thumbnail", "spritesheet"):
        check_error(await download(gateway, done, variant=variant), 404, code="file_not_found")
    check_error(await post(gateway, f"{PATH}/{done['id']}/remix", json={"prompt": "x"}), 404, code="file_not_found")
    assert (await gateway.http.get(f"{PATH}/{done['id']}", headers=KEY)).json()["status"] == "completed"
    assert (await gateway.http.delete(f"{PATH}/{done['id']}", headers=KEY)).status_code == 200


async def test_listings_that_are_refused(gateway: RunningGateway) -> None:
    for query, param in (({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order": "up"}, "order")):
        check_error(await gateway.http.get(PATH, params=query, headers=KEY), 400, param=param)
    check_error(await gateway.http.get(PATH, params={"after": "task_1"}, headers=KEY), 404, code="task_not_found")
    check_error(await gateway.http.get(PATH), 401, "authentication_error")
