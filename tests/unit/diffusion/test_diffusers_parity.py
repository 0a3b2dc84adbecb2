"""Images of every family, compared with diffusers' pipelines pixel by pixel: same weights, seeds and schedulers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.pipelines import KINDS, T5_TOKENS
from tests.unit.diffusion.tiny_pipeline import RecordingSender, TinyPipeline, open_tiny_pipeline

SIDE, STEPS, SEED = 32, 5, 7
LEAST_DEVIATION = 8.0
"""Least standard deviation of an image's pixels: comparing flat images would prove nothing."""


def reference(tiny: TinyPipeline, kind: str, task: str = "text2image") -> Any:
    """Return diffusers' pipeline for a task, over the same folder."""
    import diffusers

    absent = {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3.5" else {}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tiny.folder, **absent)
    if task != "text2image":
        kinds = {"image2image": diffusers.AutoPipelineForImage2Image, "inpainting": diffusers.AutoPipelineForInpainting}
        pipeline = kinds[task].from_pipe(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(count: int) -> list[Any]:
    import torch

    return [torch.Generator().manual_seed(SEED + number) for number in range(count)]


def tokens(kind: str) -> dict[str, int]:
    """Return the number of tokens for T5: the builder writes the most that the tokenizer allows."""
    return {"max_sequence_length": T5_TOKENS} if kind in ("sd3", "flux", "flux-dev") else {}


def assert_same_images(sender: RecordingSender, images: list[Any]) -> None:
    assert set(sender.files) == set(range(len(images)))
    for index, image in enumerate(images):
        expected = np.asarray(image).astype(int)
        assert expected.std() > LEAST_DEVIATION
        assert np.abs(sender.pixels(index) - expected).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_images_equal_those_of_diffusers(kind: str, tmp_path: Path) -> None:
    with open_tiny_pipeline(tmp_path, kind) as tiny:
        pipeline = reference(tiny, kind)
        guidance: dict[str, Any] = {} if kind == "flux" else {"guidance_scale": 5.0}
        common = {"height": SIDE, "width": SIDE + 16, "num_inference_steps": STEPS, **tokens(kind), **guidance}
        images = pipeline("a red cat", generator=generators(1), **common).images
        options: dict[str, Any] = {"height": SIDE, "width": SIDE + 16, "steps": STEPS, "seed": SEED, **guidance}
        assert_same_images(tiny.ask(**options).outcome(), images)
        negative = {} if kind in ("lcm", "flux", "flux-dev") else {"negative_prompt": "a blue cat"}
        images = pipeline("cat", generator=generators(2), num_images_per_prompt=2, **common, **negative).images
        sender = tiny.ask("cat", num_images=2, **options, **negative).outcome()
        assert_same_images(sender, images)
        assert sender.seeds == {0: SEED, 1: SEED + 1}
        assert sender.progress == sorted(sender.progress)
        assert sender.progress[-1] == 1
