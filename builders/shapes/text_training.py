"""Teaches the text encoder what the words say before the UNet needs it: its last state has to tell the scene."""

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from builders.shapes.course import Course, Tell, follow
from builders.shapes.networks import Sizes, new_text_encoder
from builders.shapes.scenes import COLOURS, PLACES, RADIUS, SHAPES, Scene, invent, prompt
from builders.shapes.tokenizer import tokenize

OF_A_THING = (
    ("colour", tuple(COLOURS)),
    ("shape", SHAPES),
    ("size", tuple(RADIUS)),
    ("place", tuple(PLACES)),
)
CLASSES = [len(COLOURS), 4] + [1 + len(names) for _ in range(2) for _, names in OF_A_THING]
"""Number of answers to each question: background, count, then colour, shape, size and place of two things."""

BATCH = 64


def facts(scene: Scene) -> list[int]:
    """The scene's answers; 0 where there is no second thing, or no other kind of it."""
    answers = [list(COLOURS).index(scene.background), len(scene.things) - 1]
    things = (scene.things[0], scene.things[1] if scene.relation else None)
    for thing in things:
        answers += [1 + names.index(getattr(thing, name)) if thing else 0 for name, names in OF_A_THING]
    return answers


def new_reader(sizes: Sizes) -> Any:
    """The linear layer that tells the facts from the text encoder's last state."""
    return torch.nn.Linear(sizes.text_width, sum(CLASSES))


def reading_loss(reader: Any, state: Any, truth: Any, told: Any) -> Any:
    """Mean cross-entropy of the facts, over the prompts that were told at all (`told`: 1 or 0 for each)."""
    answers = reader(state).split(CLASSES, 1)
    losses = [F.cross_entropy(answer, right, reduction="none") for answer, right in zip(answers, truth.T, strict=True)]
    return (sum(losses) / len(CLASSES) * told).sum() / told.sum().clamp(min=1)


def wording(scene: Scene, rng: random.Random, dropped: float) -> str:
    """A prompt as people would put it: now and then with a word that means nothing, or a full stop; or none at all."""
    if rng.random() < dropped:
        return ""
    text = prompt(scene, rng)
    if rng.random() < 0.1:
        words = text.split()
        letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))
        words.insert(rng.randrange(len(words)), letters)
        text = " ".join(words)
    return text + ("." if rng.random() < 0.1 else "")


def train_text(work: Path, course: Course, tokenizer: Any, sizes: Sizes, tell: Tell) -> tuple[Any, Any]:
    """Give the text encoder and the reader of its facts. Resumes from `work`."""
    torch.manual_seed(0)
    both = torch.nn.ModuleList([new_text_encoder(tokenizer, sizes), new_reader(sizes)])

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(10_000_000 + step)
        scenes = [invent(rng) for _ in range(BATCH)]
        numbers = tokenize(tokenizer, [wording(scene, rng, 0) for scene in scenes])
        truth = torch.tensor([facts(scene) for scene in scenes])
        return {"reading": reading_loss(both[1], both[0](numbers).pooler_output, truth, torch.ones(BATCH))}

    follow(course, work / "text.pt", both, loss_of, tell)
    return both[0], both[1]
