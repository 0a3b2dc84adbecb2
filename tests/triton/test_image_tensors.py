"""The image tensors of docs/architecture.md: Triton's client and a tiny Stable Diffusion, without the gateway."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders import recipe
from builders.build import build
from tests.fakes.pipelines import make_pipeline
from tests.triton.tensor_client import TensorClient, diffusion_stat, until
from tritonic.embedded import EmbeddedTriton

# A machine that is busy takes minutes to export five engines.
pytestmark = [pytest.mark.triton, pytest.mark.timeout(1200)]

NAME = "tiny"
LONG = 900
"""A number of steps that takes many seconds."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return make_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny", "sd", scheduler=scheduler)


@pytest.fixture(scope="module")
def triton(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    repository = tmp_path_factory.mktemp("drawing")
    pictures = {"default_size": [64, 64], "max_steps": LONG, "max_size": 128}
    build(recipe.make(family="diffusion", name=NAME, source=str(pipeline), max_rows=4, pictures=pictures), repository)
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


def images(responses: list[dict[str, Any]]) -> dict[int, Any]:
    """Return the pixels of the finished images by index."""
    found = [response for response in responses if "image" in response and "partial" not in response]
    return {int(each["index"]): np.asarray(Image.open(io.BytesIO(each["image"]))).astype(int) for each in found}


def test_images_equal_those_of_diffusers(infer: TensorClient, pipeline: Path) -> None:
    import diffusers
    import torch

    pipe = diffusers.DiffusionPipeline.from_pretrained(pipeline)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    expected = pipe(
        "a red cat",
        height=64,
        width=48,
        num_inference_steps=6,
        guidance_scale=5.0,
        num_images_per_prompt=2,
        generator=generators,
    ).images
    responses = infer(height=64, width=48, steps=6, guidance_scale=5.0, num_images=2, seed=7)
    found = images(responses)
    assert [np.abs(found[number] - np.asarray(image)).max() for number, image in enumerate(expected)] <= [1, 1]
    assert sorted(int(each["seed"]) for each in responses if "seed" in each) == [7, 8]
    fractions = [float(each["progress"]) for each in responses if "progress" in each]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_concurrent_requests_share_denoiser_runs_and_keep_their_images(
    infer: TensorClient, stat: Callable[[str], int]
) -> None:
    alone = [images(infer(seed=seed, steps=20))[0] for seed in range(6)]
    time.sleep(0.2)  # the metrics are behind by a tenth of a second
    runs, steps = stat("runs_total"), stat("steps_total")
    for seed in range(6):
        infer.send(str(seed), seed=seed, steps=20)
    responses = infer.responses(6)
    for seed in range(6):
        together = images([response for response in responses if response["request"] == str(seed)])[0]
        assert np.abs(together - alone[seed]).max() <= 1
    until(lambda: stat("steps_total") - steps == 6 * 20)
    assert stat("runs_total") - runs < 6 * 20 * 0.7


def test_a_disconnect_frees_the_rows_of_the_denoiser(
    triton: EmbeddedTriton, infer: TensorClient, stat: Callable[[str], int]
) -> None:
    disconnecting_client = TensorClient(triton.grpc_url, NAME)
    disconnecting_client.send(steps=LONG, num_images=6)
    until(lambda: stat("rows_active") == 4 and stat("rows_waiting") == 2)
    disconnecting_client.server.stop_stream(cancel_requests=True)
    until(lambda: stat("rows_active") == 0 and stat("rows_waiting") == 0, 3)
    before = stat("runs_total")
    time.sleep(0.3)
    assert stat("runs_total") == before
    assert images(infer(steps=2))[0].shape == (64, 64, 3)
    assert stat("requests_cancelled_total") == 1
    disconnecting_client.server.close()


def test_edits_keep_the_masked_pixels(infer: TensorClient) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    clear = np.zeros((64, 64), np.uint8)
    clear[:, :32] = 255
    found = images(infer(image=[png(pixels)], mask=[png(clear)], steps=5, seed=3))[0]
    assert (found[:, 32:] == pixels[:, 32:]).all()
    assert (found[:, :32] != pixels[:, :32]).any()
    varied = images(infer(image=[png(pixels)], strength=0.5, steps=5, seed=3))[0]
    assert (varied != pixels).any()


def test_previews_and_formats(infer: TensorClient) -> None:
    responses = infer(steps=12, partial_images=2, output_format="webp", quality=30)
    previews = [int(each["partial"]) for each in responses if "partial" in each]
    assert previews == [0, 1]
    for each in responses:
        if "image" in each:
            assert Image.open(io.BytesIO(each["image"])).format == "WEBP"


def test_request_parameters_stand_in_for_absent_tensors(infer: TensorClient) -> None:
    found = images(infer(parameters={"steps": "3", "guidance_scale": "2.5", "seed": 5}))[0]
    assert (found == images(infer(steps=3, guidance_scale=2.5, seed=5))[0]).all()
    with pytest.raises(Exception, match=r"\[unsupported_option:step\]"):
        infer(parameters={"step": 3})


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"steps": 0}, r"\[invalid_value:steps\]"),
        ({"width": 60}, r"\[invalid_value:width\] .*60x64"),
        ({"num_images": 11}, r"\[invalid_value:num_images\]"),
        ({"prompt": "cat " * 50_000}, r"\[context_length_exceeded:prompt\]"),
        ({"image": [b"no picture"]}, r"\[invalid_value:image\]"),
        ({"image": [b"\xff\xd8" + b"\xff\xda\0\2" * 101]}, r"\[invalid_value:image\] .*more than the 100 scans"),
        ({"strength": 0.5}, r"\[invalid_value:strength\]"),
        ({"output_format": "tiff"}, r"\[invalid_value:output_format\]"),
    ],
)
def test_invalid_tensors_are_refused_and_the_next_request_is_served(
    infer: TensorClient, tensors: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        infer(**tensors)
    assert images(infer(steps=1))[0].shape == (64, 64, 3)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
