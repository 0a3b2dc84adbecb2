"""Measure how many captions of held-out pictures are right in every claim.

The pictures are painted by the code of the models whose pictures they are, not by that of the training.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.common.scores import EvaluationScores, score_groups
from training.moving_shapes.rendering import render_clip
from training.moving_shapes.scenes import sample_scene as sample_moving_scene
from training.moving_shapes.trajectories import sample_trajectory
from training.shapes.evaluation import generate_images
from training.shapes.judge import judge as judge_image
from training.shapes.networks import load_pipeline
from training.shapes.rendering import render_scene
from training.shapes.scenes import Scene, sample_scene, scene_prompt
from training.shapes_captioner.conversations import DESCRIBE
from training.shapes_captioner.judge import CRITERIA, judge
from training.shapes_captioner.networks import IMAGE_TEXT, to_tiles
from training.shapes_captioner.pictures import Picture, first_frame_picture, sample_held_out, scene_picture
from training.shapes_captioner.rendering import render
from training.shapes_captioner.tokenizer import END, PAD, START

BATCH = 32
SEED = 12345
MAX_ANSWER_TOKENS = 48

WORLDS = ("scene", "scene", "scene", "first frame")
"""The worlds of the evaluated pictures, in turn. The third world is `free`."""


@dataclass(frozen=True, slots=True)
class TestPicture:
    """A picture that the training never uses: its geometry, and the image."""

    picture: Picture
    image: Image.Image


def held_out_pictures(count: int, worlds: Sequence[str] = WORLDS, seed: int = SEED) -> list[TestPicture]:
    """Return pictures that the training never uses; the same seed gives the same pictures."""
    rng = random.Random(seed)
    makers = {"scene": _scene, "first frame": _first_frame, "free": _free}
    return [makers[worlds[number % len(worlds)]](rng) for number in range(count)]


def generated_pictures(count: int, seed: int = SEED) -> list[TestPicture]:
    """Return pictures that the model `shapes` draws from held-out prompts, without those that its judge finds wrong."""
    rng = random.Random(seed)
    scenes = [_held_out_scene(rng) for _ in range(count)]
    images = generate_images(load_pipeline(), [scene_prompt(scene) for scene in scenes])
    return [
        TestPicture(scene_picture(scene), Image.fromarray(image))
        for scene, image in zip(scenes, images, strict=True)
        if judge_image(image, scene)["all"]
    ]


def _held_out_scene(rng: random.Random) -> Scene:
    while True:
        scene = sample_scene(rng, held_out=True)
        if scene_picture(scene).is_held_out:
            return scene


def _scene(rng: random.Random) -> TestPicture:
    scene = _held_out_scene(rng)
    return TestPicture(scene_picture(scene), Image.fromarray(render_scene(scene, rng)))


def _first_frame(rng: random.Random) -> TestPicture:
    while True:
        scene = sample_moving_scene(rng)
        trajectory = sample_trajectory(scene.motion, rng)
        picture = first_frame_picture(scene, trajectory)
        if picture.is_held_out:
            return TestPicture(picture, Image.fromarray(render_clip(scene, trajectory)[0]))


def _free(rng: random.Random) -> TestPicture:
    picture = sample_held_out(rng)
    return TestPicture(picture, Image.fromarray(render(picture, 128)))


def answer(
    model: Any,
    tokenizer: Any,
    images: list[Image.Image],
    question: str = DESCRIBE[0],
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Ask the same question about each image, and return the answers: greedy ones, or sampled at a temperature."""
    text = f"{START}user\n{IMAGE_TEXT}{question}{END}\n{START}assistant\n"
    prompt = tokenizer.encode(text, add_special_tokens=False).ids
    sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    answers: list[str] = []
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        torch.manual_seed(seed + first)
        with torch.inference_mode():
            ids = model.generate(
                input_ids=torch.tensor([prompt] * len(batch)),
                attention_mask=torch.ones(len(batch), len(prompt), dtype=torch.int64),
                pixel_values=to_tiles(batch)[:, None],
                max_new_tokens=MAX_ANSWER_TOKENS,
                eos_token_id=tokenizer.token_to_id(END),
                pad_token_id=tokenizer.token_to_id(PAD),
                **({"do_sample": False} | sampling),
            )
        answers += tokenizer.decode_batch(ids[:, len(prompt) :].tolist())
    return answers


def evaluate(model: Any, tokenizer: Any, tests: Sequence[TestPicture], temperature: float = 0.0) -> EvaluationScores:
    """Describe pictures, greedily or by sampling at a temperature, and judge the captions."""
    started = time.monotonic()
    captions = answer(model, tokenizer, [test.image for test in tests], temperature=temperature)
    seconds = (time.monotonic() - started) / len(tests)
    return score(captions, [test.picture for test in tests], seconds)


def score(captions: list[str], pictures: list[Picture], seconds: float = 0.0) -> EvaluationScores:
    """Judge captions of pictures. `seconds` is the time per caption."""
    verdicts = [(picture.kind, judge(caption, picture)) for caption, picture in zip(captions, pictures, strict=True)]
    kinds = ("one", "group", "pair", "first frame", "free")
    return score_groups(verdicts, CRITERIA, kinds, group_title="pictures", counted="number", seconds=seconds)


def shown(image: Image.Image, side: int) -> Any:
    """Return the pixels of an image at the size of a contact sheet, uint8[side, side, 3]."""
    return np.asarray(image.resize((side, side), Image.Resampling.NEAREST))
