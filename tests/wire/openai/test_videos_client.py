"""Videos by the official `openai` client, which marks its methods as deprecated: OpenAI's own service has ended."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import av
import openai
import pytest
import pytest_asyncio
from openai.types import Video
from PIL import Image

from tests.fakes.video_model import video_file
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.video_requests import create, finished, run_filming

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with run_filming(tmp_path_factory.mktemp("state")) as (_, running):
        await finished(running, await create(running))  # the first task creates the database
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> openai.AsyncOpenAI:
    return gateway.client(api_key="sk-a")


async def test_create_and_poll_download_and_remix(client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    video = await client.videos.create_and_poll(
        prompt="a red circle", model="sora-2", seconds="4", size="720x1280", extra_body={"seed": 3}
    )
    Video.model_validate({**video.model_dump(), "size": "720x1280"}, strict=True)  # the SDK lists OpenAI's sizes
    assert (video.status, video.progress, video.seconds, video.error) == ("completed", 100, "4", None)
    assert video.completed_at and video.expires_at and video.object == "video"
    content = await client.videos.download_content(video.id)
    path = tmp_path / "a.mp4"
    content.write_to_file(path)
    with av.open(path) as file:
        first = next(file.decode(video=0))
        assert f"{first.width}x{first.height}" == video.size and float(file.duration or 0) / 1e6 == pytest.approx(4)
    thumbnail = await client.videos.download_content(video.id, variant="thumbnail")
    assert Image.open(io.BytesIO(thumbnail.content)).format == "WEBP"
    remix = await client.videos.remix(video.id, prompt="a blue circle")
    remixed = await client.videos.poll(remix.id)
    assert (remixed.status, remixed.remixed_from_video_id) == ("completed", video.id)


async def test_list_and_delete(client: openai.AsyncOpenAI) -> None:
    made = [await client.videos.create_and_poll(prompt=f"{number}", poll_interval_ms=50) for number in range(3)]
    listed = [video.id async for video in client.videos.list(limit=2)]  # it asks for every page
    assert listed[:3] == [video.id for video in reversed(made)] and len(set(listed)) == len(listed) > 3
    first = await client.videos.list(limit=1, order="asc")
    assert first.data[0].id == listed[-1] and first.has_more
    deleted = await client.videos.delete(made[0].id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made[0].id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(made[0].id)
    with pytest.raises(openai.NotFoundError):
        await client.videos.download_content(made[0].id)


async def test_references(client: openai.AsyncOpenAI) -> None:
    picture = encoded_image()
    by_file = await client.videos.create_and_poll(prompt="x", input_reference=("a.png", picture))
    assert by_file.status == "completed"
    film = video_file((64, 64), 9, 8)
    edit = await client.videos.edit(prompt="blue", video=("a.mp4", film))
    assert (await client.videos.poll(edit.id)).status == "completed"
    longer = await client.videos.extend(prompt="on", seconds="4", video=("a.mp4", film))
    assert (await client.videos.poll(longer.id)).status == "completed"


async def test_failures(client: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    failed = await client.videos.create_and_poll(prompt="x", model="film-broken")
    assert failed.status == "failed" and failed.error and failed.error.code == "model_failed"
    with pytest.raises(openai.BadRequestError, match="has failed"):
        await client.videos.download_content(failed.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.videos.create(prompt="x", seconds="12")
    assert refused.value.param == "seconds"
    retrying = gateway.client(api_key="sk-a", max_retries=2)
    slow = await retrying.videos.create(prompt="x", model="film-slow")
    with pytest.raises(openai.BadRequestError, match="not ready yet"):
        await retrying.videos.download_content(slow.id)
    assert (await retrying.videos.delete(slow.id)).deleted
