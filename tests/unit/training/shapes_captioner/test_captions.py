"""Pictures, their captions and conversations, and the judge of captions."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from training.moving_shapes.rendering import render_clip
from training.moving_shapes.scenes import MovingScene
from training.moving_shapes.trajectories import sample_trajectory
from training.shapes.judge import judge as judge_image
from training.shapes.rendering import render_scene
from training.shapes.scenes import COLOURS, SHAPES, Scene, SceneObject, sample_scene, scene_prompt
from training.shapes_captioner.captions import caption
from training.shapes_captioner.conversations import DESCRIBE, Turn, sample_turns
from training.shapes_captioner.evaluation import held_out_pictures
from training.shapes_captioner.judge import CRITERIA, judge, read_caption
from training.shapes_captioner.pictures import (
    Picture,
    PlacedShape,
    first_frame_picture,
    sample_held_out,
    sample_picture,
    scene_picture,
)
from training.shapes_captioner.rendering import render, render_varied

PAIR = Picture(
    "white", (PlacedShape("blue", "square", 0.75, 0.5, 0.15), PlacedShape("red", "circle", 0.25, 0.5, 0.22)), "pair"
)
RIGHT = "a large red circle left of a small blue square on a white background"


def pictures(count: int, seed: int = 1) -> list[Picture]:
    rng = random.Random(seed)
    return [sample_picture(rng) for _ in range(count)]


def test_the_caption_of_a_scene_is_a_prompt_for_it() -> None:
    rng = random.Random(3)
    for scene in [sample_scene(rng) for _ in range(200)]:
        said = caption(scene_picture(scene))
        assert judge(said, scene_picture(scene))["all"]
        if scene.relation in (None, "left of", "above") and not scene_picture(scene).are_alike:
            assert said == scene_prompt(scene)


def test_every_caption_of_the_training_is_right_and_the_canonical_one_complete() -> None:
    rng = random.Random(5)
    for picture in pictures(400):
        assert judge(caption(picture), picture) == dict.fromkeys((*CRITERIA, "all"), True), caption(picture)
        varied = caption(picture, rng)
        assert judge(varied, picture)["all"], varied


def test_the_training_words_a_picture_in_several_ways() -> None:
    rng = random.Random(5)
    assert len({caption(PAIR, rng) for _ in range(50)}) > 10


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (RIGHT, set()),
        ("A little blue square to the right of a big red circle on a white background.", set()),
        ("a picture of a red circle and a blue square on a white background", {"complete"}),
        ("a large red circle right of a small blue square on a white background", {"position"}),
        ("a small red circle left of a small blue square on a white background", {"size"}),
        ("a large red square left of a small blue circle on a white background", {"colour", "shape"}),
        ("a large red ring left of a small blue square on a white background", {"shape"}),
        ("a large red circle left of a small blue square on a grey background", {"background"}),
        ("a large red circle on a white background", {"count", "colour", "shape", "size", "position", "complete"}),
        ("a photo of a cat", {*CRITERIA}),
        ("", {*CRITERIA}),
    ],
)
def test_the_judge_finds_what_is_wrong(text: str, wrong: set[str]) -> None:
    verdict = judge(text, PAIR)
    found = {name for name in CRITERIA if not verdict[name]}
    # A swap of two shapes is wrong in colour or in shape, as one pairs them.
    assert found == wrong or (len(wrong & {"colour", "shape"}) == 2 and found <= wrong | {"size", "position"})
    assert verdict["all"] == (wrong <= {"complete"})


def test_places_and_sizes_at_a_border_may_be_called_either() -> None:
    item = PlacedShape("red", "circle", 0.38, 0.5, 0.18)
    assert item.places == {"left", "centre"} and item.sizes == {"small", "large"}
    picture = Picture("blue", (item,), "free")
    assert caption(picture) == "a red circle on a blue background"
    for place, right in (("on the left", True), ("in the middle", True), ("on the right", False)):
        assert judge(f"a small red circle {place} on a blue background", picture)["all"] == right


def test_a_caption_of_an_empty_picture() -> None:
    empty = Picture("pink", (), "first frame")
    assert caption(empty) == "nothing on a pink background"
    assert judge(caption(empty), empty)["all"] and not empty.is_held_out
    assert not judge("a red circle on a pink background", empty)["all"]


def test_groups_and_lists_are_read() -> None:
    group = read_caption("3 little gray rings on a white background")
    assert group is not None and len(group.shapes) == 3
    assert (group.shapes[0].colour, group.shapes[0].size) == ("grey", "small")
    several = read_caption("a red ring, a large blue star and a green circle on a black background")
    assert several is not None and [claim.size for claim in several.shapes] == [None, "large", None]


def test_no_picture_of_the_training_has_a_held_out_combination() -> None:
    seen = {(p.background, frozenset((s.colour, s.shape) for s in p.shapes)) for p in pictures(1_000)}
    rng = random.Random(2)
    tests = [test.picture for test in held_out_pictures(64)] + [sample_held_out(rng) for _ in range(16)]
    assert all(p.is_held_out and p.shapes for p in tests)
    assert not seen & {(p.background, frozenset((s.colour, s.shape) for s in p.shapes)) for p in tests}
    again = replace(tests[0], shapes=tests[0].shapes[::-1])
    assert again.is_held_out == tests[0].is_held_out
    assert {p.kind for p in tests} == {"one", "group", "pair", "first frame", "free"}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_renderer_paints_what_the_two_models_learn(shape: str) -> None:
    scene = Scene("white", (SceneObject("purple", shape, "large", "top left"),))
    ours, theirs = render(scene_picture(scene), 128), render_scene(scene)
    assert judge_image(ours, scene)["all"]
    assert np.abs(ours.astype(int) - theirs).mean() < 1.0
    moving = MovingScene("white", "purple", shape, "left")
    path = sample_trajectory("left", random.Random(4))
    clip, frame = render_clip(moving, path), render(first_frame_picture(moving, path), 64)
    assert np.abs(frame.astype(int) - clip[0]).max() <= 1


def test_the_first_frame_of_a_shape_that_fades_in_is_empty() -> None:
    path = sample_trajectory("appear", random.Random(4))
    assert first_frame_picture(MovingScene("white", "red", "ring", "appear"), path).shapes == ()


def test_varied_pictures_keep_their_colours() -> None:
    rng = random.Random(8)
    for picture in pictures(60):
        image = render_varied(picture, rng)
        assert image.mode == "RGB" and min(image.size) in (64, 128, 160)
        assert image.width / image.height == pytest.approx(picture.aspect, rel=0.02)
        corner = np.asarray(image.resize((16, 16), Image.Resampling.BOX))[0, 0]
        assert np.abs(corner.astype(int) - COLOURS[picture.background]).max() < 40


def test_a_shape_keeps_its_form_in_a_picture_that_is_not_square() -> None:
    item = PlacedShape("red", "circle", 0.25, 0.5, 0.2)
    wide = Picture("white", (item,), "free", aspect=2.0)
    covered = (render(wide, 64) == COLOURS["red"]).all(-1)
    assert covered.shape == (64, 128)
    (top, bottom), (left, right) = (np.flatnonzero(covered.any(axis))[[0, -1]] for axis in (1, 0))
    assert bottom - top == right - left and (left + right) / 2 == pytest.approx(31.5)
    assert caption(wide) == "a large red circle on the left on a white background"
    pair = replace(wide, shapes=(item, replace(item, x=0.5, y=0.2, shape="star")))
    assert caption(pair) == "a large red circle and a large red star on a white background"


def test_answers_are_true() -> None:
    rng = random.Random(9)
    turns = [(picture, turn) for picture in pictures(300) for turn in sample_turns(picture, 3, rng)]
    assert all(judge(turn.answer, picture)["all"] for picture, turn in turns if turn.question in DESCRIBE)
    answers = {turn.question: turn.answer for turn in sample_questions(PAIR)}
    assert answers["How many shapes are there?"] == "two"
    assert answers["What color is the circle?"] == "red"
    assert answers["What shape is the blue one?"] == "a square"
    assert answers["Where is the blue square?"] == "on the right"
    assert answers["How big is the red circle?"] == "large"
    assert answers["Is there a red circle?"] == "yes"
    assert answers["What is the background colour?"] == "white"
    assert answers.get("Is there a red square?", "no") == "no"


def sample_questions(picture: Picture) -> list[Turn]:
    rng = random.Random(9)
    return [turn for _ in range(200) for turn in sample_turns(picture, 4, rng)]
