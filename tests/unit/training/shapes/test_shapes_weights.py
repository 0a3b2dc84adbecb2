"""The weights that come with the project draw what they are asked for."""

import numpy as np
import pytest

from training.shapes.evaluation import evaluate, generate_images, image_to_image, inpaint
from training.shapes.judge import CRITERIA, nearest_colours
from training.shapes.networks import WEIGHTS, load_pipeline
from training.shapes.rendering import ImageArray
from training.shapes.scenes import COLOURS

NAMES = list(COLOURS)
PIECES = {
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
    "model_index.json",
}


@pytest.fixture(scope="module")
def pipeline() -> object:
    return load_pipeline()


def middle(picture: ImageArray) -> str:
    """The colour of most of the middle sixteenth."""
    return NAMES[np.bincount(nearest_colours(picture)[48:80, 48:80].ravel()).argmax()]


def corners(picture: ImageArray) -> set[str]:
    return {NAMES[kind] for kind in nearest_colours(picture)[[2, 2, -3, -3], [2, -3, 2, -3]]}


def test_the_folder_is_whole_and_small() -> None:
    assert {str(f.relative_to(WEIGHTS)) for f in WEIGHTS.rglob("*") if f.is_file()} >= PIECES
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) < 15e6


def test_a_thing_is_in_the_middle_and_its_background_around_it(pipeline: object) -> None:
    for thing, background in (("red", "blue"), ("yellow", "black"), ("green", "white")):
        (picture,) = generate_images(
            pipeline, [f"a large {thing} circle in the centre on a {background} background"], seed=1
        )
        assert middle(picture) == thing
        assert corners(picture) == {background}


def test_the_same_seed_draws_the_same_picture_and_another_seed_another(pipeline: object) -> None:
    text = "two small green squares on a white background"
    first, again, other = (generate_images(pipeline, [text], steps=4, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_held_out_prompts_are_kept(pipeline: object) -> None:
    kept = evaluate(pipeline, 24).pass_rates["all"]
    assert all(kept[claim] >= 0.8 for claim in CRITERIA), kept


@pytest.mark.exports
@pytest.mark.timeout(1800)
def test_nine_of_ten_held_out_prompts_are_kept_whole(pipeline: object) -> None:
    """The bar for which the weights were trained. 120 of these 128 are kept, each drawn from a seed of its own."""
    kept = evaluate(pipeline, 128).pass_rates["all"]
    assert kept["pictures"] == 128 and kept["all"] >= 0.9, kept


def test_a_masked_half_is_repainted_and_the_rest_kept(pipeline: object) -> None:
    edits = inpaint(pipeline, 3)
    assert sum(edit.is_correct for edit in edits) >= 2
    for edit in edits:
        assert (edit.before == edit.after).all(-1).mean() > 0.45


def test_a_thing_changes_its_colour(pipeline: object) -> None:
    assert sum(edit.is_correct for edit in image_to_image(pipeline, 3, strength=0.8)) >= 2
