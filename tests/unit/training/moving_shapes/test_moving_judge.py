"""The judge passes every rendered clip, and fails clips with a single fault."""

import random
from dataclasses import replace

import numpy as np
import pytest

from training.moving_shapes.judge import CRITERIA, judge
from training.moving_shapes.rendering import Clip, render_clip, render_dataset
from training.moving_shapes.scenes import MOTIONS, TURNING_SHAPES, MovingScene
from training.moving_shapes.trajectories import sample_trajectory
from training.shapes.scenes import COLOURS, SHAPES

LEFT = MovingScene("blue", "red", "square", "left")


def render(scene: MovingScene, seed: int = 0) -> Clip:
    return render_clip(scene, sample_trajectory(scene.motion, random.Random(seed)))


def failed(clip: Clip, scene: MovingScene) -> set[str]:
    verdict = judge(clip, scene)
    return {criterion for criterion in CRITERIA if not verdict[criterion]}


@pytest.mark.parametrize("held_out", [False, True])
def test_rendered_clips_pass(held_out: bool) -> None:
    clips, scenes = render_dataset(60, seed=99, held_out=held_out)
    assert not [(s, failed(c, s)) for c, s in zip(clips, scenes, strict=True) if failed(c, s)]


def test_each_criterion_can_fail_alone() -> None:
    for criterion, other in (("colour", "pink"), ("shape", "circle"), ("motion", "right")):
        assert failed(render(replace(LEFT, **{criterion: other})), LEFT) == {criterion}
    assert "background" in failed(render(replace(LEFT, background="purple")), LEFT)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_is_distinguished_from_every_other(motion: str) -> None:
    for claimed in MOTIONS:
        for seed in range(2):
            scene = replace(LEFT, motion=motion, shape="triangle")
            verdict = judge(render(scene, seed), replace(scene, motion=claimed))
            assert verdict["motion"] == (claimed == motion), claimed


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_distinguished_from_every_other(shape: str) -> None:
    for claimed in SHAPES:
        for motion in ("up", "turn") if {shape, claimed} <= set(TURNING_SHAPES) else ("up",):
            scene = MovingScene("yellow", "grey", shape, motion)
            assert judge(render(scene), replace(scene, shape=claimed))["shape"] == (shape == claimed)


def test_a_motion_backwards_in_time_fails() -> None:
    for motion in ("left", "grow", "turn", "circle", "appear"):
        scene = MovingScene("white", "black", "star", motion)
        assert "motion" in failed(render(scene)[::-1], scene)


def test_a_second_shape_fails() -> None:
    clip = render(LEFT).copy()
    clip[:, 4:12, 28:36] = COLOURS["red"]
    assert {"colour", "shape", "motion"} <= failed(clip, LEFT)


def test_a_shape_that_is_half_right_fails() -> None:
    clip = render(MovingScene("blue", "red", "circle", "grow")).copy()
    for frame in clip:
        rows = np.nonzero((frame == COLOURS["red"]).all(-1).any(1))[0]
        frame[int(rows.mean()) :] = COLOURS["blue"]
    assert "shape" in failed(clip, MovingScene("blue", "red", "circle", "grow"))


def test_noise_and_a_still_shape_fail() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)
    assert failed(noise, LEFT) == set(CRITERIA)
    still = np.repeat(render(LEFT)[:1], 17, 0)
    for motion in MOTIONS:
        assert failed(still, replace(LEFT, motion=motion)) >= {"motion"}
