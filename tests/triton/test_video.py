"""The video tensors of docs/architecture.md: Triton's client and a tiny Wan pipeline, without the gateway."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.diffusion.video.mp4_file import Mp4File, find_encoders
from builders import recipe
from builders.build import build
from tests.fakes.pipelines import T5_TOKENS
from tests.fakes.tiny_wan import make_wan_pipeline
from tests.triton.tensor_client import TensorClient, diffusion_stat, until
from tests.unit.diffusion.video.tiny_video import picture, read_video
from tritonic.embedded import EmbeddedTriton
from tritonic.models import ModelRepositoryClient

# A machine that is busy takes minutes to export seven engines.
pytestmark = [pytest.mark.triton, pytest.mark.timeout(1200)]

NAME = "tiny-video"
WIDTH, HEIGHT, FRAMES = 48, 32, 9
LONG = 400
"""A number of steps that takes many seconds."""
LONGEST = 253
"""A number of frames that takes seconds to decode."""
NOISE = np.random.default_rng(1).integers(0, 255, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wan_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny", "ti2v-small")


@pytest.fixture(scope="module")
def triton(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    repository = tmp_path_factory.mktemp("filming")
    videos = {
        "default_size": [WIDTH, HEIGHT],
        "min_size": 16,
        "max_size": 256,
        "default_steps": 4,
        "max_steps": LONG,
        "default_num_frames": FRAMES,
        "max_num_frames": LONGEST,
        "default_fps": 8,
    }
    build(recipe.make(family="video", name=NAME, source=str(pipeline), max_rows=4, videos=videos), repository)
    with EmbeddedTriton(repository) as running:
        yield running


@pytest.fixture
def infer(triton: EmbeddedTriton) -> Iterator[TensorClient]:
    tensor_client = TensorClient(triton.grpc_url, NAME)
    yield tensor_client
    tensor_client.close()


@pytest.fixture
def stat(triton: EmbeddedTriton) -> Callable[[str], int]:
    return lambda name: diffusion_stat(triton, NAME, name)


def frames_of(responses: list[dict[str, Any]]) -> Any:
    """Return the frames of the only video, uint8[n, height, width, 3]."""
    (video,) = (response["video"] for response in responses if "video" in response)
    return read_video(video)[0].astype(int)


def test_a_video_equals_that_of_diffusers(infer: TensorClient, pipeline: Path) -> None:
    import diffusers
    import torch

    pipe = diffusers.DiffusionPipeline.from_pretrained(pipeline)
    expected = pipe(
        "a red cat",
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=T5_TOKENS,
    ).frames[0]
    responses = infer(seed=7, quality=100)
    # An MP4 of noise is far from exact, so the expected frames become one too.
    with Mp4File((WIDTH, HEIGHT), 8, find_encoders("auto"), 100) as file:
        file.add((expected * 255).round().astype(np.uint8))
        encoded = read_video(file.finish())[0]
    assert np.abs(frames_of(responses) - encoded).mean() < 3 < encoded.std()
    video, seconds, codec = read_video(responses[-1].pop("video"))
    assert (len(video), seconds, codec) == (FRAMES, FRAMES / 8, "h264")
    outputs = {name: int(value) for name, value in responses[-1].items() if name != "request"}
    assert outputs == {"width": WIDTH, "height": HEIGHT, "num_frames": FRAMES, "fps": 8, "seed": 7}
    fractions = [float(each["progress"]) for each in responses if "progress" in each]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_concurrent_requests_share_denoiser_runs_and_keep_their_videos(
    infer: TensorClient, stat: Callable[[str], int]
) -> None:
    alone = [frames_of(infer(seed=seed, steps=20, quality=100)) for seed in range(4)]
    time.sleep(0.2)  # the metrics are behind by a tenth of a second
    runs, steps, videos = stat("runs_total"), stat("steps_total"), stat("videos_total")
    for seed in range(4):
        infer.send(str(seed), seed=seed, steps=20, quality=100)
    infer.send("other", seed=9, width=64, num_frames=5)
    responses = infer.responses(5)
    for seed in range(4):
        together = frames_of([response for response in responses if response["request"] == str(seed)])
        distances = [np.abs(together - video).mean() for video in alone]
        assert distances.pop(seed) < 3 < 5 < min(distances)
    assert frames_of([each for each in responses if each["request"] == "other"]).shape == (5, HEIGHT, 64, 3)
    until(lambda: stat("steps_total") - steps == 4 * 20 + 4)
    until(lambda: stat("videos_total") - videos == 5)
    assert stat("runs_total") - runs < 4 * 20 * 0.7


def test_a_first_frame_and_a_video_are_references(infer: TensorClient) -> None:
    pictures = [picture(frame) for frame in NOISE]
    from_text = frames_of(infer(seed=3))
    from_image = frames_of(infer(seed=3, image=pictures[:1]))
    from_frames = frames_of(infer(seed=3, frames=pictures, strength=0.5, steps=6))
    for one, other in ((from_text, from_image), (from_text, from_frames), (from_image, from_frames)):
        assert one.shape == other.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert np.abs(one - other).mean() > 2
    again = frames_of(infer(seed=3, frames=[picture(frame, "JPEG") for frame in NOISE], strength=0.5, steps=6))
    assert np.abs(from_frames - again).mean() < np.abs(from_frames - from_text).mean()


def test_a_disconnect_frees_the_rows_of_the_denoiser(
    triton: EmbeddedTriton, infer: TensorClient, stat: Callable[[str], int]
) -> None:
    disconnecting_client = TensorClient(triton.grpc_url, NAME)
    for seed in range(6):
        disconnecting_client.send(steps=LONG, seed=seed)
    until(lambda: stat("rows_active") == 4 and stat("rows_waiting") == 2)
    disconnecting_client.close()
    until(lambda: stat("rows_active") == 0 and stat("rows_waiting") == 0, 3)
    assert frames_of(infer(steps=2)).shape == (FRAMES, HEIGHT, WIDTH, 3)
    until(lambda: stat("requests_cancelled_total") == 6)


def test_a_disconnect_ends_the_decoding(
    triton: EmbeddedTriton, infer: TensorClient, stat: Callable[[str], int]
) -> None:
    before = stat("frames_total")
    disconnecting_client = TensorClient(triton.grpc_url, NAME)
    disconnecting_client.send(steps=1, num_frames=LONGEST, width=256, height=256)
    until(lambda: stat("frames_total") > before, 60)
    disconnecting_client.close()
    time.sleep(1)
    frames = stat("frames_total")
    time.sleep(0.5)
    assert stat("frames_total") == frames < before + LONGEST


def test_previews_are_pictures(infer: TensorClient) -> None:
    responses = infer(steps=12, partial_images=2)
    assert [int(each["partial"]) for each in responses if "partial" in each] == [0, 1]
    for each in responses:
        if "preview" in each:
            shown = Image.open(io.BytesIO(each["preview"]))
            assert (shown.format, shown.size) == ("WEBP", (WIDTH, HEIGHT))


def test_request_parameters_stand_in_for_absent_tensors(infer: TensorClient) -> None:
    found = frames_of(infer(parameters={"num_frames": "5", "fps": 4, "seed": 5}))
    assert (found == frames_of(infer(num_frames=5, seed=5, fps=4))).all()
    with pytest.raises(Exception, match=r"\[unsupported_option:frame\]"):
        infer(parameters={"frame": 3})


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"num_frames": 0}, r"\[invalid_value:num_frames\]"),
        ({"num_frames": 10**6 + 1}, r"\[invalid_value:num_frames\]"),
        ({"fps": 0}, r"\[invalid_value:fps\]"),
        ({"width": 50}, r"\[invalid_value:width\]"),
        ({"image": [b"no picture"]}, r"\[invalid_value:image\]"),
        ({"frames": [b"no picture"] * 5}, r"\[invalid_value:frames\]"),
        ({"prompt": "cat " * 50_000}, r"\[context_length_exceeded:prompt\]"),
        ({"strength": 0.5}, r"\[invalid_value:strength\]"),
    ],
)
def test_invalid_tensors_are_refused_and_the_next_request_is_served(
    infer: TensorClient, tensors: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        infer(**tensors)
    assert len(frames_of(infer(steps=1, num_frames=1))) == 1


def test_unloading_lets_a_video_finish_and_leaves_nothing_behind(
    triton: EmbeddedTriton, stat: Callable[[str], int]
) -> None:
    before, own_client = stat("frames_total"), TensorClient(triton.grpc_url, NAME)
    own_client.send(steps=1, num_frames=LONGEST, width=256, height=256)
    until(lambda: stat("frames_total") > before, 60)
    with ModelRepositoryClient(triton.grpc_url, triton.secret) as models:
        models.unload(NAME)
        assert len(frames_of(own_client.responses())) == LONGEST
        own_client.close()  # Triton does not unload a model that an open stream has asked

        def state() -> str:
            (found,) = (model.state for model in models.states() if model.name == NAME)
            return found

        until(lambda: state() == "UNAVAILABLE", 30)
