"""Videos compared with diffusers' pipelines, frame by frame: same weights, seeds and schedulers."""

import importlib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes.pipelines import T5_TOKENS
from tests.unit.diffusion.video.tiny_video import HEIGHT, WIDTH, TinyVideoPipeline, open_tiny_video, picture

STEPS, FRAMES, SEED = 3, 9, 7
PROMPT_CLEANERS = ("pipeline_wan_i2v", "pipeline_wan_video2video")
"""Modules of diffusers that need the package ftfy, which repairs characters: there are none to repair here."""
TOLERANCE = 1e-4
"""Largest difference of a colour, of 0 to 1."""
LEAST_DEVIATION = 0.02
"""Least standard deviation of the colours of a video: comparing flat videos would prove nothing."""
TOKENS = {"max_sequence_length": 512}
"""Those of `i2v`."""
LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of BT.709: the file has the other two components of a colour at half the size."""
PICTURE = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
MOVIE = np.random.default_rng(4).integers(0, 255, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(autouse=True)
def prompts_without_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROMPT_CLEANERS:
        module = importlib.import_module(f"diffusers.pipelines.wan.{name}")
        monkeypatch.setattr(module, "ftfy", types.SimpleNamespace(fix_text=str), raising=False)


def reference(tiny: TinyVideoPipeline, kind: str = "WanPipeline") -> Any:
    """Return diffusers' pipeline of a class, over the same folder."""
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(tiny.folder)
    if kind == "WanImageToVideoPipeline" and kind != type(pipeline).__name__:
        components = {**pipeline.components, "image_encoder": None, "image_processor": None}
        pipeline = diffusers.WanImageToVideoPipeline(**components, expand_timesteps=True)
    elif kind != type(pipeline).__name__:
        components = {**pipeline.components}
        components.pop("transformer_2")
        pipeline = getattr(diffusers, kind)(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline: Any, prompt: str, seed: int, **options: Any) -> Any:
    """Return the frames, float32[n, H, W, 3] in 0..1."""
    import torch

    defaults = {
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": STEPS,
        "guidance_scale": 3.0,
        "max_sequence_length": T5_TOKENS,
    }
    return pipeline(
        prompt=prompt,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **{**defaults, **options},
    ).frames[0]


def assert_same_frames(tiny: TinyVideoPipeline, seed: int, expected: Any) -> None:
    frames = np.concatenate(tiny.decoded.pop(seed), axis=1).transpose(1, 2, 3, 0).clip(-1, 1) / 2 + 0.5
    assert frames.shape == expected.shape
    assert expected.std() > LEAST_DEVIATION
    assert np.abs(frames - expected).max() <= TOLERANCE


@pytest.mark.parametrize("kind", ["t2v", "ti2v", "ti2v-small"])
def test_videos_equal_those_of_diffusers(kind: str, tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, kind) as tiny:
        pipeline = reference(tiny)
        sender = tiny.ask("a red cat", seed=SEED, num_frames=FRAMES, quality=100).outcome()
        expected = run(pipeline, "a red cat", SEED, num_frames=FRAMES)
        assert_same_frames(tiny, SEED, expected)
        assert (sender.num_frames, sender.size, sender.fps, sender.seed) == (FRAMES, (WIDTH, HEIGHT), 8, SEED)
        assert sender.progress == sorted(sender.progress)
        assert sender.progress[-1] == 1
        shown = sender.frames() / 255
        assert len(shown) == FRAMES
        assert np.abs((shown - expected) @ LUMA).mean() < 0.02
        # One more frame size, a single frame, no guidance.
        tiny.ask("cat", seed=8, num_frames=1, width=32, height=64, guidance_scale=1.0).outcome()
        assert_same_frames(tiny, 8, run(pipeline, "cat", 8, num_frames=1, width=32, height=64, guidance_scale=1.0))


@pytest.mark.parametrize("kind", ["t2v", "ti2v-small"])
def test_three_requests_at_once_share_runs_and_equal_diffusers(kind: str, tmp_path: Path) -> None:
    prompts = {11: ("a red cat", None), 12: ("a dog &amp; a  bird", "a blue cat"), 13: ("cat", None)}
    with open_tiny_video(tmp_path, kind, max_rows=4) as tiny:
        tiny.components.gate.clear()
        senders = [
            tiny.ask(prompt, seed=seed, negative_prompt=negative, num_frames=FRAMES)
            for seed, (prompt, negative) in prompts.items()
        ]
        tiny.components.gate.set()
        for sender in senders:
            sender.outcome()
        assert max(tiny.components.batches("denoiser")) > 2
        pipeline = reference(tiny)
        for seed, (prompt, negative) in prompts.items():
            assert_same_frames(tiny, seed, run(pipeline, prompt, seed, negative_prompt=negative, num_frames=FRAMES))


@pytest.mark.parametrize("kind", ["ti2v", "ti2v-small"])
def test_a_video_begins_with_the_image_that_was_sent(kind: str, tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, kind) as tiny:
        pipeline = reference(tiny, "WanImageToVideoPipeline")
        tiny.ask("cat", seed=SEED, num_frames=FRAMES, images=(picture(PICTURE),)).outcome()
        expected = run(pipeline, "cat", SEED, num_frames=FRAMES, image=Image.fromarray(PICTURE))
        assert_same_frames(tiny, SEED, expected)


def test_a_first_frame_may_be_channels_and_tokens_of_the_denoiser(tmp_path: Path) -> None:
    """The picture has another aspect ratio than what the image encoder takes, which crops it."""
    with open_tiny_video(tmp_path, "i2v", max_rows=2) as tiny:
        pipeline = reference(tiny, "WanImageToVideoPipeline")
        tiny.components.gate.clear()
        senders = [
            tiny.ask("cat", seed=seed, num_frames=FRAMES, images=(picture(pixels),), width=WIDTH, height=HEIGHT)
            for seed, pixels in ((SEED, PICTURE), (8, MOVIE[0, :20]))
        ]
        tiny.components.gate.set()
        for sender in senders:
            sender.outcome()
        expected = run(pipeline, "cat", SEED, num_frames=FRAMES, image=Image.fromarray(PICTURE), **TOKENS)
        assert_same_frames(tiny, SEED, expected)
        expected = run(pipeline, "cat", 8, num_frames=FRAMES, image=Image.fromarray(MOVIE[0, :20]), **TOKENS)
        assert_same_frames(tiny, 8, expected)


@pytest.mark.parametrize(("kind", "strength"), [("t2v", 0.7), ("t2v", 1.0), ("ti2v-small", 0.5)])
def test_a_video_may_start_from_another(kind: str, strength: float, tmp_path: Path) -> None:
    with open_tiny_video(tmp_path, kind) as tiny:
        pipeline = reference(tiny, "WanVideoToVideoPipeline")
        frames = tuple(picture(frame) for frame in MOVIE)
        tiny.ask("cat", seed=SEED, steps=4, frames=frames, strength=strength).outcome()
        movie = [Image.fromarray(frame) for frame in MOVIE]
        expected = run(pipeline, "cat", SEED, video=movie, strength=strength, num_inference_steps=4)
        assert_same_frames(tiny, SEED, expected)
