"""Scenes, their prompts, their trajectories and their clips."""

import random

import numpy as np
import pytest

from training.moving_shapes.prompts import MOTION_PHRASES, scene_prompt, vocabulary
from training.moving_shapes.rendering import coverage, render_clip, render_dataset
from training.moving_shapes.scenes import MOTIONS, TURNING_SHAPES, MovingScene, sample_scene
from training.moving_shapes.trajectories import CLIP_SIZE, NUM_FRAMES, sample_trajectory
from training.shapes.scenes import COLOURS, SHAPES


def test_prompts_describe_their_scenes() -> None:
    assert (
        scene_prompt(MovingScene("orange", "red", "circle", "left"))
        == "a red circle moves to the left on an orange background"
    )
    assert scene_prompt(MovingScene("grey", "orange", "star", "turn")) == "an orange star turns on a grey background"


def test_varied_prompts_name_the_motion_the_colour_and_the_shape() -> None:
    rng = random.Random(3)
    for _ in range(1000):
        scene = sample_scene(rng)
        prompt = scene_prompt(scene, rng)
        assert scene.colour.replace("grey", "gr") in prompt and scene.shape in prompt
        assert any(phrase in prompt for pair in MOTION_PHRASES[scene.motion] for phrase in pair), prompt
        if "background" not in prompt:
            assert scene.background == "white"


def test_no_phrase_means_two_motions() -> None:
    phrases = [phrase for pairs in MOTION_PHRASES.values() for pair in pairs for phrase in pair]
    assert tuple(MOTION_PHRASES) == MOTIONS
    assert len(set(phrases)) == len(phrases)


def test_held_out_scenes_are_never_trained_on() -> None:
    rng = random.Random(1)
    trained, held_out = ({sample_scene(rng, side) for _ in range(3000)} for side in (False, True))
    assert not trained & held_out
    assert len(held_out) > 256
    assert {scene.motion for scene in held_out} == set(MOTIONS)


def test_only_shapes_whose_rotation_shows_turn() -> None:
    rng = random.Random(2)
    assert {s.shape for s in (sample_scene(rng) for _ in range(2000)) if s.motion == "turn"} == set(TURNING_SHAPES)


def test_every_word_is_in_the_vocabulary() -> None:
    rng, words = random.Random(1), set(vocabulary())
    for _ in range(1000):
        assert set(scene_prompt(sample_scene(rng), rng).replace(",", "").split()) <= words


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_shape_stays_within_the_clip(motion: str) -> None:
    rng = random.Random(4)
    for number in range(60):
        trajectory = sample_trajectory(motion, rng)
        assert trajectory.x.shape == trajectory.opacity.shape == (NUM_FRAMES,)
        scene = MovingScene("blue", "red", TURNING_SHAPES[number % 3], motion)
        clip = render_clip(scene, trajectory)
        border = np.concatenate([clip[:, 0], clip[:, -1], clip[:, :, 0], clip[:, :, -1]], 1)
        assert (border == COLOURS["blue"]).all(-1).mean() > 0.97


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_area_and_its_centre(shape: str) -> None:
    trajectory = sample_trajectory("grow", random.Random(0))
    covered = coverage(shape, trajectory)
    area = {"circle": 3.1416, "square": 3.24, "triangle": 1.299, "star": 1.3226, "ring": 2.1913}[shape]
    assert covered.sum((1, 2)) == pytest.approx(area * trajectory.radius**2, rel=0.03)
    places = np.arange(CLIP_SIZE) + 0.5
    assert (covered.sum(1) * places).sum(1) / covered.sum((1, 2)) == pytest.approx(trajectory.x, abs=0.2)


def test_the_direction_of_a_centred_start_cannot_be_seen() -> None:
    rng = random.Random(6)
    starts = {
        motion: np.mean([sample_trajectory(motion, rng, from_centre=True).x[0] for _ in range(100)])
        for motion in ("left", "right")
    }
    assert abs(starts["left"] - starts["right"]) < 2


def test_the_same_seed_renders_the_same_clips() -> None:
    first, second, other = (render_dataset(3, seed)[0] for seed in (7, 7, 8))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
