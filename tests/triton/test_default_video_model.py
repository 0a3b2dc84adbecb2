"""The default video model through HTTP, by the official client: its clips follow prompts, first frames and remixes."""

import asyncio
import io
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from builders import manifest, recipe
from tests.triton.conftest import PATIENCE
from tests.triton.model_copies import build_default
from tests.unit.diffusion.video.tiny_video import read_video
from tests.wire.gateway_server import RunningGateway, run_gateway
from training.moving_shapes.evaluation import MAX_LEVEL_ERROR, held_out_prompts, held_out_scenes
from training.moving_shapes.judge import judge
from training.moving_shapes.prompts import scene_prompt
from training.moving_shapes.rendering import render_clip
from training.moving_shapes.scenes import MovingScene, sample_scene
from training.moving_shapes.trajectories import sample_trajectory
from tritonic.embedded import EmbeddedTriton

pytestmark = [
    pytest.mark.triton,
    pytest.mark.timeout(1200),  # a busy machine takes minutes to export the engines
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]

NAME = recipe.DEFAULT_VIDEO_RECIPE
SECONDS: Any = "2"
"""The type of the client allows 4, 8 and 12 only."""


@pytest.fixture(scope="module")
def video_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A separate Triton with only the default video model, which is built if it is missing."""
    installed = build_default(NAME).parent
    repository = tmp_path_factory.mktemp("videos")
    for name in (NAME, *manifest.part_names(installed / NAME)):
        shutil.copytree(installed / name, repository / name)
    with EmbeddedTriton(repository) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(video_triton: EmbeddedTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(video_triton.grpc_url, triton_secret=video_triton.secret) as running:
        running.http.timeout = httpx.Timeout(PATIENCE)
        yield running


async def download(gateway: RunningGateway, video: Any) -> Any:
    """Return the frames of a video that must have been completed, uint8[n, 64, 64, 3]."""
    assert video.status == "completed", video.error
    file = await gateway.client().videos.download_content(video.id)
    frames, seconds, codec = read_video(file.content)
    assert frames.shape[1:] == (64, 64, 3)
    assert seconds == pytest.approx(len(frames) / 8, abs=0.01)
    assert codec in ("h264", "av1", "vp9")
    return frames


async def film(gateway: RunningGateway, prompt: str, seed: int, **fields: Any) -> Any:
    video = await gateway.client().videos.create_and_poll(
        model=NAME, prompt=prompt, seconds=SECONDS, poll_interval_ms=200, extra_body={"seed": seed}, **fields
    )
    return await download(gateway, video)


async def test_videos_follow_held_out_prompts_on_triton(gateway: RunningGateway) -> None:
    """As in PyTorch: see docs/moving-shapes.md for the shares of 256 prompts."""
    scenes = held_out_scenes(12)
    clips = await asyncio.gather(*(film(gateway, prompt, seed) for seed, prompt in enumerate(held_out_prompts(scenes))))
    verdicts = [judge(clip, scene) for clip, scene in zip(clips, scenes, strict=True)]
    for criterion, least in (("background", 11), ("colour", 9), ("motion", 7), ("all", 5)):
        assert sum(verdict[criterion] for verdict in verdicts) >= least, (criterion, verdicts)


async def test_a_first_frame_begins_the_video(gateway: RunningGateway) -> None:
    rng = random.Random(1)
    scene = replace(sample_scene(rng), motion="right")
    first = render_clip(scene, sample_trajectory(scene.motion, rng, from_centre=True))[0]
    file = io.BytesIO()
    Image.fromarray(first).save(file, "PNG")
    clip = await film(gateway, scene_prompt(scene), 1, input_reference=("first.png", file.getvalue(), "image/png"))
    assert (np.abs(clip[0].astype(int) - first).max(-1) <= MAX_LEVEL_ERROR).mean() >= 0.9
    assert np.abs(clip[-1].astype(int) - first).max() > 100, "it moves"


async def test_a_remix_changes_the_colour(gateway: RunningGateway) -> None:
    client = gateway.client()
    scene = MovingScene(colour="red", shape="circle", motion="right", background="white")
    video = await client.videos.create_and_poll(
        model=NAME, prompt=scene_prompt(scene), seconds=SECONDS, poll_interval_ms=200, extra_body={"seed": 3}
    )
    before = await download(gateway, video)
    changed = replace(scene, colour="blue")
    remix = await client.videos.remix(video.id, prompt=scene_prompt(changed))
    assert remix.remixed_from_video_id == video.id
    after = await download(gateway, await client.videos.poll(remix.id, poll_interval_ms=200))
    assert judge(before, scene)["colour"]
    assert judge(after, changed)["colour"]


async def test_a_seed_repeats_its_video_alone_and_beside_others(gateway: RunningGateway) -> None:
    prompt = "a green square moves up"
    alone = await film(gateway, prompt, 7)
    beside, other = await asyncio.gather(film(gateway, prompt, 7), film(gateway, prompt, 8))
    assert np.abs(alone.astype(int) - beside).max() <= 2
    assert np.abs(alone.astype(int) - other).max() > 50
