"""Scenes, their prompts and their images."""

import random

import numpy as np
import pytest

from training.shapes.rendering import IMAGE_SIZE, render_dataset, render_scene
from training.shapes.scenes import (
    COLOURS,
    GROUP_LAYOUTS,
    PLACES,
    RADIUS,
    SHAPES,
    Scene,
    SceneObject,
    sample_scene,
    scene_prompt,
    vocabulary,
)


def group(number: int) -> Scene:
    return Scene("blue", tuple(SceneObject("red", "circle", "small", place) for place in GROUP_LAYOUTS[number]))


def test_prompts_describe_their_scenes() -> None:
    one = Scene("orange", (SceneObject("red", "circle", "large", "top left"),))
    pair = Scene(
        "grey", (SceneObject("red", "star", "small", "top"), SceneObject("blue", "ring", "large", "bottom")), "above"
    )
    assert scene_prompt(one) == "a large red circle at the top left on an orange background"
    assert scene_prompt(group(3)) == "three small red circles on a blue background"
    assert scene_prompt(pair) == "a small red star above a large blue ring on a grey background"


def test_different_scenes_have_different_prompts() -> None:
    rng = random.Random(5)
    scenes = {sample_scene(rng) for _ in range(3000)}
    assert len({scene_prompt(scene) for scene in scenes}) == len(scenes)
    assert {scene.kind for scene in scenes} == {"one", "group", "pair"}
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}


def test_omitted_words_mean_the_centre_and_a_white_background() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        scene = sample_scene(rng)
        words = scene_prompt(scene, rng)
        if "background" not in words:
            assert scene.background == "white"
        if scene.kind == "one" and not any(f" {near} the " in words for near in ("in", "on", "at")):
            assert scene.objects[0].place == "centre"


def test_held_out_scenes_are_never_trained_on() -> None:
    trained, held_out_scenes = (render_dataset(400, seed, held_out)[1] for seed, held_out in ((1, False), (1, True)))
    assert not set(trained) & set(held_out_scenes)
    assert len({scene_prompt(scene) for scene in held_out_scenes}) > 300


def test_every_word_is_in_the_vocabulary() -> None:
    rng, words = random.Random(1), set(vocabulary())
    for _ in range(1000):
        assert set(scene_prompt(sample_scene(rng), rng).split()) <= words


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_colour_in_its_place(shape: str) -> None:
    for place, (x, y) in PLACES.items():
        image = render_scene(Scene("blue", (SceneObject("red", shape, "small", place),)))
        assert image.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        rows, columns = np.nonzero((image == COLOURS["red"]).all(-1))
        assert abs(columns.mean() + 0.5 - x) < 0.5
        assert abs(rows.mean() + 0.5 - y) < 0.5
        assert np.hypot(columns + 0.5 - x, rows + 0.5 - y).max() < RADIUS["small"] * 1.3
        assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == COLOURS["blue"]).all()


def test_the_same_seed_draws_the_same_pictures() -> None:
    first, second, other = (render_dataset(8, seed)[0] for seed in (7, 7, 8))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
