"""The judge passes every rendered scene, and fails images with a single fault."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.shapes.judge import CRITERIA, judge
from training.shapes.rendering import render_dataset, render_scene
from training.shapes.scenes import COLOURS, GROUP_LAYOUTS, SHAPES, Scene, SceneObject

ONE = Scene("blue", (SceneObject("red", "circle", "small", "left"),))
TWO = Scene(
    "white", (SceneObject("red", "circle", "small", "left"), SceneObject("green", "star", "large", "right")), "left of"
)
FOUR = Scene("blue", tuple(SceneObject("red", "square", "large", place) for place in GROUP_LAYOUTS[4]))


def failed(image: np.ndarray, scene: Scene) -> set[str]:
    return {criterion for criterion in CRITERIA if not judge(image, scene)[criterion]}


@pytest.mark.parametrize("held_out", [False, True])
def test_rendered_scenes_pass(held_out: bool) -> None:
    images, scenes = render_dataset(150, seed=99, held_out=held_out)
    wrong = [(s, failed(p, s)) for p, s in zip(images, scenes, strict=True) if not judge(p, s)["all"]]
    assert not wrong


def test_each_criterion_can_fail_alone() -> None:
    item = ONE.objects[0]
    for criterion, other in (
        ("colour", replace(item, colour="pink")),
        ("shape", replace(item, shape="ring")),
        ("size", replace(item, size="large")),
        ("position", replace(item, place="right")),
    ):
        assert failed(render_scene(replace(ONE, objects=(other,))), ONE) == {criterion}
    assert failed(render_scene(replace(ONE, background="purple")), ONE) >= {"background"}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_distinguished_from_every_other(shape: str) -> None:
    for other in SHAPES:
        for size in ("small", "large"):
            drawn = Scene("blue", (SceneObject("red", other, size, "centre"),))
            expected = Scene("blue", (SceneObject("red", shape, size, "centre"),))
            assert judge(render_scene(drawn), expected)["shape"] == (shape == other)


def test_a_wrong_count_fails_all_criteria_of_objects() -> None:
    three = Scene("blue", FOUR.objects[:3])
    assert failed(render_scene(three), FOUR) == set(CRITERIA) - {"background"}


def test_touching_objects_count_as_one() -> None:
    image = Image.fromarray(render_scene(FOUR))
    ImageDraw.Draw(image).rectangle((28, 28, 100, 36), fill=COLOURS["red"])
    assert not judge(np.asarray(image), FOUR)["count"]


def test_swapped_objects_fail() -> None:
    swapped = Scene("white", (replace(TWO.objects[1], place="left"), replace(TWO.objects[0], place="right")), "left of")
    assert {"colour", "shape"} <= failed(render_scene(swapped), TWO)


def test_a_shape_that_is_half_right_fails() -> None:
    image = render_scene(ONE).copy()
    image[64:, :, :] = COLOURS["blue"]
    assert "shape" in failed(image, ONE)


def test_noise_fails_all_criteria() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert failed(noise, TWO) == set(CRITERIA)
