"""The packaged weights are complete. `tests/triton/test_default_video_model.py` judges what they generate."""

import numpy as np
import pytest

from training.moving_shapes.evaluation import generate_clips
from training.moving_shapes.networks import WEIGHTS, load_pipeline

FILES = {
    "text_encoder/model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/tokenizer.json",
    "scheduler/scheduler_config.json",
    "model_index.json",
}


@pytest.fixture(scope="module")
def pipeline() -> object:
    return load_pipeline()


def test_the_packaged_weights_are_complete_and_small() -> None:
    assert {str(f.relative_to(WEIGHTS)) for f in WEIGHTS.rglob("*") if f.is_file()} >= FILES
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) < 12e6


def test_the_seed_decides_the_clip(pipeline: object) -> None:
    first, again, other = (
        generate_clips(pipeline, ["a green square moves up on a white background"], steps=4, seed=seed)[0]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
