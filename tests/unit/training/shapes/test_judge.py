"""The judge passes every true picture and fails what is wrong in one way only."""

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


def failed(picture: np.ndarray, scene: Scene) -> set[str]:
    return {claim for claim in CRITERIA if not judge(picture, scene)[claim]}


@pytest.mark.parametrize("held_out", [False, True])
def test_true_pictures_pass(held_out: bool) -> None:
    pictures, scenes = render_dataset(150, seed=99, held_out=held_out)
    wrong = [(s, failed(p, s)) for p, s in zip(pictures, scenes, strict=True) if not judge(p, s)["all"]]
    assert not wrong


def test_each_claim_can_fail_alone() -> None:
    thing = ONE.objects[0]
    for claim, other in (
        ("colour", replace(thing, colour="pink")),
        ("shape", replace(thing, shape="ring")),
        ("size", replace(thing, size="large")),
        ("position", replace(thing, place="right")),
    ):
        assert failed(render_scene(replace(ONE, objects=(other,))), ONE) == {claim}
    assert failed(render_scene(replace(ONE, background="purple")), ONE) >= {"background"}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_told_from_every_other(shape: str) -> None:
    for other in SHAPES:
        for size in ("small", "large"):
            drawn = Scene("blue", (SceneObject("red", other, size, "centre"),))
            asked = Scene("blue", (SceneObject("red", shape, size, "centre"),))
            assert judge(render_scene(drawn), asked)["shape"] == (shape == other)


def test_the_wrong_number_keeps_no_other_claim() -> None:
    three = Scene("blue", FOUR.objects[:3])
    assert failed(render_scene(three), FOUR) == set(CRITERIA) - {"background"}


def test_things_that_touch_are_not_two() -> None:
    image = Image.fromarray(render_scene(FOUR))
    ImageDraw.Draw(image).rectangle((28, 28, 100, 36), fill=COLOURS["red"])
    assert not judge(np.asarray(image), FOUR)["count"]


def test_swapped_things_fail() -> None:
    swapped = Scene("white", (replace(TWO.objects[1], place="left"), replace(TWO.objects[0], place="right")), "left of")
    assert {"colour", "shape"} <= failed(render_scene(swapped), TWO)


def test_a_shape_that_is_half_right_fails() -> None:
    picture = render_scene(ONE).copy()
    picture[64:, :, :] = COLOURS["blue"]
    assert "shape" in failed(picture, ONE)


def test_noise_keeps_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert failed(noise, TWO) == set(CRITERIA)
