"""The memory that videos of requests may take."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.video_model import video_file
from tests.wire.openai.video_requests import KEY, PATH, create, finished, post, run_filming

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_memory_for_frames_is_reserved(tmp_path: Path) -> None:
    """Two videos that are decoded at a time may not take more memory than there is."""
    memory = {"requests_held_bytes": 400_000_000, "video_frames_max_bytes": 150_000_000, "max_body_bytes": 1_000_000}
    film = {"input_reference": ("a.mp4", video_file((1280, 720), 17, 8), "video/mp4")}
    async with run_filming(tmp_path, **memory) as (_, gateway):
        await finished(gateway, await create(gateway))
        sending = [
            gateway.http.post(PATH, data={"prompt": "x", "size": "1280x720"}, files=film, headers=KEY) for _ in range(2)
        ]
        statuses = sorted([response.status_code for response in await asyncio.gather(*sending)])
        assert statuses == [200, 503]
        assert (await post(gateway, data={"prompt": "x", "size": "1280x720"}, files=film)).status_code == 200
