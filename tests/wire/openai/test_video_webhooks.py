"""Webhooks of /v1/videos, as OpenAI's client verifies them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError

from tests.fakes.scripted_model import Fail, FilmVideo, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.wire.gateway_server import run_gateway

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    # OpenAI ends its own videos; the format lives on elsewhere.
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MODELS = [
    ScriptedModel("film", (FilmVideo(2),), is_video_model=True),
    ScriptedModel("film-broken", (Fail("[engine_failed] The engine stopped."),), is_video_model=True),
]


@pytest_asyncio.fixture(loop_scope="session")
async def client(tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    triton = await FakeTriton(MODELS).start()
    settings: dict[str, Any] = {"webhook_secret": [SECRET], "webhook_allowed_hosts": ["127.0.0.1"]}
    async with run_gateway(triton.url, state=tmp_path, **settings) as gateway:
        yield gateway.client(webhook_secret=SECRET, max_retries=5)
    await triton.stop()


async def test_openai_client_unwraps_the_events_of_videos(client: AsyncOpenAI) -> None:
    receiver = await WebhookReceiver().start()
    more = {"webhook_url": receiver.url()}
    made = await client.videos.create(model="film", prompt="a red circle", extra_body=more)
    failed = await client.videos.create(model="film-broken", prompt="a red circle", extra_body=more)
    await receiver.until(2)
    remix = await client.videos.remix(made.id, prompt="a blue circle", extra_body=more)
    calls = await receiver.until(3)
    await receiver.stop()
    events: list[Any] = [client.webhooks.unwrap(call.body, call.headers) for call in calls]
    assert {(event.data.id, event.type) for event in events} == {
        (made.id, "video.completed"),
        (failed.id, "video.failed"),
        (remix.id, "video.completed"),
    }
    assert (await client.videos.retrieve(made.id)).status == "completed"
    assert len({call.headers["webhook-id"] for call in calls}) == 3


async def test_addresses_that_can_never_be_called_are_refused(client: AsyncOpenAI) -> None:
    more = {"webhook_url": "http://169.254.169.254/latest/meta-data"}
    with pytest.raises(BadRequestError) as refused:
        await client.videos.create(model="film", prompt="a red circle", extra_body=more)
    assert refused.value.param == "webhook_url" and "public Internet" in refused.value.message
