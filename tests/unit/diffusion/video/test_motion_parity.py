"""Videos of AnimateDiff compared with diffusers' pipeline, frame by frame: same weights, seeds and schedulers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.serving.errors import InvalidValue, UnsupportedOption
from tests.fakes.tiny_animatediff import MAX_FRAMES
from tests.unit.diffusion.video.tiny_video import HEIGHT, WIDTH, TinyVideoPipeline, open_tiny_video, picture

STEPS, FRAMES, SEED = 3, 6, 7
TOLERANCE = 1e-4
"""Largest difference of a colour, of 0 to 1."""
LEAST_DEVIATION = 0.02
LEAST_MOTION = 0.01
"""Least mean difference of two frames: frames that are all the same would not show that they are joined."""
LIMITS = {"max_num_frames": MAX_FRAMES, "default_num_frames": FRAMES}


def reference(tiny: TinyVideoPipeline) -> Any:
    import diffusers

    pipeline = diffusers.AnimateDiffPipeline.from_pretrained(tiny.folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline: Any, prompt: str, seed: int, **options: Any) -> Any:
    """Return the frames, float32[n, H, W, 3] in 0..1."""
    import torch

    defaults = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": STEPS, "guidance_scale": 3.0}
    generator = torch.Generator().manual_seed(seed)
    return pipeline(prompt=prompt, generator=generator, output_type="np", **{**defaults, **options}).frames[0]


def assert_same_frames(tiny: TinyVideoPipeline, seed: int, expected: Any) -> None:
    frames = np.concatenate(tiny.decoded.pop(seed), axis=1).transpose(1, 2, 3, 0).clip(-1, 1) / 2 + 0.5
    assert frames.shape == expected.shape
    assert expected.std() > LEAST_DEVIATION
    assert len(expected) == 1 or np.abs(np.diff(expected, axis=0)).mean() > LEAST_MOTION
    assert np.abs(frames - expected).max() <= TOLERANCE


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_one_video_equals_that_of_diffusers(scheduler: str, tmp_path: Path) -> None:
    import diffusers

    solver = None if scheduler == "DDIMScheduler" else getattr(diffusers, scheduler)(beta_schedule="linear")
    with open_tiny_video(tmp_path, "animatediff", solver, **LIMITS) as tiny:
        pipeline = reference(tiny)
        sender = tiny.ask("a red cat", seed=SEED, num_frames=FRAMES).outcome()
        assert_same_frames(tiny, SEED, run(pipeline, "a red cat", SEED, num_frames=FRAMES))
        assert (sender.num_frames, sender.size, len(sender.frames())) == (FRAMES, (WIDTH, HEIGHT), FRAMES)
        tiny.ask("cat", seed=8, num_frames=1, width=32, height=64, guidance_scale=1.0).outcome()
        assert_same_frames(tiny, 8, run(pipeline, "cat", 8, num_frames=1, width=32, height=64, guidance_scale=1.0))


def test_three_requests_at_once_share_runs_and_equal_diffusers(tmp_path: Path) -> None:
    prompts = {11: ("a red cat", None), 12: ("a dog", "a blue cat"), 13: ("cat", None)}
    with open_tiny_video(tmp_path, "animatediff", max_rows=4, **LIMITS) as tiny:
        tiny.components.gate.clear()
        senders = [
            tiny.ask(prompt, seed=seed, negative_prompt=negative, num_frames=FRAMES, steps=2 + index)
            for index, (seed, (prompt, negative)) in enumerate(prompts.items())
        ]
        tiny.components.gate.set()
        for sender in senders:
            sender.outcome()
        assert max(tiny.components.batches("denoiser")) > 2, "rows at other timesteps share runs"
        pipeline = reference(tiny)
        for index, (seed, (prompt, negative)) in enumerate(prompts.items()):
            options = {"negative_prompt": negative, "num_frames": FRAMES, "num_inference_steps": 2 + index}
            assert_same_frames(tiny, seed, run(pipeline, prompt, seed, **options))


def test_a_video_may_start_from_frames_but_not_from_a_picture(tmp_path: Path) -> None:
    movie = np.random.default_rng(4).integers(0, 255, (4, HEIGHT, WIDTH, 3), np.uint8)
    files = tuple(picture(frame) for frame in movie)
    with open_tiny_video(tmp_path, "animatediff", **LIMITS) as tiny:
        sender = tiny.ask("cat", frames=files, strength=0.5, steps=4).outcome()
        assert (sender.num_frames, len(tiny.components.batches("denoiser"))) == (4, 2)
        with pytest.raises(UnsupportedOption, match="takes no image"):
            tiny.ask("cat", images=files[:1]).outcome()
        with pytest.raises(InvalidValue, match=f"generates 1 to {MAX_FRAMES} frames, not 13"):
            tiny.ask("cat", num_frames=13).outcome()
