"""The official Node client and the video routes."""

import re
from pathlib import Path

from tests.clients.node_runner import run_node_tests
from tests.fakes.video_model import video_file
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.video_requests import create, finished, run_filming


async def test_the_node_client_makes_videos(tmp_path: Path) -> None:
    film, picture = tmp_path / "a.mp4", tmp_path / "a.png"
    film.write_bytes(video_file((64, 64), 9, 8))
    picture.write_bytes(encoded_image())
    async with run_filming(tmp_path / "state") as (_, gateway):
        await finished(gateway, await create(gateway))  # the first task creates the database
        output = await run_node_tests("video.test.mjs", GATEWAY_URL=gateway.url, FILM=str(film), PICTURE=str(picture))
        passed = re.search(r"pass (\d+)", output)
        assert passed is not None and int(passed[1]) >= 5, output
