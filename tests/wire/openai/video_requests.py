"""Requests for videos to a gateway in front of scripted models."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import httpx

from gateway.dialects.openai import videos_responses
from tests.fakes.scripted_model import Fail, FilmVideo, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.conformance import validate_exactly

PATH = "/v1/videos"
KEYS: dict[str, Any] = {"api_keys": ["sk-a", "sk-b"]}
KEY, OTHER_KEY = {"Authorization": "Bearer sk-a"}, {"Authorization": "Bearer sk-b"}
MODELS = [
    ScriptedModel("film", (FilmVideo(2),), is_video_model=True),
    ScriptedModel("film-text-only", (FilmVideo(2),), is_video_model=True, parameters={"references": "[]"}),
    ScriptedModel(
        "film-picture",
        (FilmVideo(2),),
        is_video_model=True,
        parameters={"references": '["image"]', "requires_image": "true"},
    ),
    ScriptedModel("film-quick", (FilmVideo(2),), is_video_model=True, parameters={"max_steps": "5"}),
    ScriptedModel("film-slow", (FilmVideo(400, pause=0.05),), is_video_model=True),
    ScriptedModel("film-broken", (Fail("[engine_failed] The engine stopped."),), is_video_model=True),
    ScriptedModel("film-garbled", (FilmVideo(1, is_garbled=True),), is_video_model=True),
]


@contextlib.asynccontextmanager
async def run_filming(state: Path, **settings: Any) -> AsyncIterator[tuple[FakeTriton, RunningGateway]]:
    """Run the models, and a gateway with two keys."""
    triton = await FakeTriton(MODELS).start()
    aliases = {"sora-2": "film"}
    async with run_gateway(triton.url, state=state, model_aliases=aliases, **KEYS, **settings) as running:
        yield triton, running
    await triton.stop()


async def post(gateway: RunningGateway, path: str = PATH, headers: dict[str, str] = KEY, **options: Any) -> Any:
    """Send a request. The first task creates the database; on a busy machine, that takes longer than requests wait."""
    async with asyncio.timeout(90):
        while True:
            response = await gateway.http.post(path, headers=headers, **options)
            if response.status_code != 503:
                return response


async def create(gateway: RunningGateway, path: str = PATH, files: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a new video. With `files`, the request is a form."""
    body = {"prompt": "a red circle", **fields}
    response = await post(gateway, path, **({"json": body} if files is None else {"data": body, "files": files}))
    assert response.status_code == 200, response.text
    validate_exactly(videos_responses.CreateVideoResponse, response.content)
    return response.json()


async def finished(gateway: RunningGateway, video: dict[str, Any]) -> dict[str, Any]:
    """Return the video once it has ended."""
    async with asyncio.timeout(60):
        while True:
            response = await gateway.http.get(f"{PATH}/{video['id']}", headers=KEY)
            found = response.json()
            validate_exactly(videos_responses.CreateVideoResponse, response.content)
            if found["status"] not in ("queued", "in_progress"):
                assert "openai-poll-after-ms" not in response.headers
                return found
            assert 500 <= int(response.headers["openai-poll-after-ms"]) <= 5000
            await asyncio.sleep(0.05)


async def download(gateway: RunningGateway, video: dict[str, Any], **query: str) -> httpx.Response:
    return await gateway.http.get(f"{PATH}/{video['id']}/content", params=query, headers=KEY)


def frames(data: bytes) -> list[Any]:
    with av.open(io.BytesIO(data), "r") as file:
        return [frame.to_image() for frame in file.decode(video=0)]


def pixel(picture: Any, x: int, y: int) -> tuple[int, int, int]:
    """Return the colour at a position."""
    red, green, blue = picture.getpixel((x, y))
    return red, green, blue
