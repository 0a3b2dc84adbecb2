"""Videos that start from a picture or a video at a URL."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from tests.fakes.triton import FakeTriton
from tests.fakes.video_model import video_file
from tests.unit.gateway.media.media_stubs import StubSite
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.text_requests import check_error
from tests.wire.openai.video_requests import PATH, create, finished, post, run_filming

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site() -> AsyncIterator[StubSite]:
    site = StubSite()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FakeTriton, RunningGateway]]:
    state: Path = tmp_path_factory.mktemp("state")
    async with run_filming(state, media_allow_private=True, video_max_bytes=40_000) as both:
        yield both


async def test_a_picture(running: tuple[FakeTriton, RunningGateway], site: StubSite) -> None:
    filming, gateway = running
    url = site.page("/a.png", encoded_image(size=(50, 100), colour=(9, 9, 200)))
    done = await finished(gateway, await create(gateway, input_reference={"image_url": url}))
    assert done["status"] == "completed", done
    with Image.open(io.BytesIO(filming.calls[-1].tensors["image"][0])) as first:
        assert (first.size, first.getpixel((5, 5))) == ((64, 64), (9, 9, 200))


async def test_a_video(running: tuple[FakeTriton, RunningGateway], site: StubSite) -> None:
    filming, gateway = running
    url = site.redirect("/film", site.page("/a.mp4", video_file((64, 64), 9, 8)))
    done = await finished(gateway, await create(gateway, input_reference=url))
    assert (done["status"], len(filming.calls[-1].tensors["frames"])) == ("completed", 9)
    edited = await finished(gateway, await create(gateway, f"{PATH}/edits", video=url, prompt="blue"))
    assert (edited["status"], edited["remixed_from_video_id"]) == ("completed", None)


async def test_files_that_are_refused(running: tuple[FakeTriton, RunningGateway], site: StubSite) -> None:
    _, gateway = running
    large = site.page("/large.mp4", video_file() + bytes(50_000))
    missing = site.page("/missing.png", b"no", status="404 Not Found")
    page = site.page("/a.html", b"<html>This is a page.</html>", "Content-Type: video/mp4")
    for url, message in ((large, "40000 bytes"), (missing, "404"), (page, "expected an image")):
        response = await post(gateway, json={"prompt": "x", "input_reference": url})
        assert message in check_error(response, 400, param="input_reference")
