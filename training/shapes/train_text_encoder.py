"""Teaches the text encoder what the words say before the UNet needs it: its last state has to tell the scene."""

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from training.shapes.networks import NetworkSizes, new_text_encoder
from training.shapes.scenes import COLOURS, PLACES, RADIUS, SHAPES, Scene, sample_scene, scene_prompt
from training.shapes.tokenizer import tokenize
from training.shapes.training_loop import LogLine, StageConfig, run_training_loop

OBJECT_ATTRIBUTES = (
    ("colour", tuple(COLOURS)),
    ("shape", SHAPES),
    ("size", tuple(RADIUS)),
    ("place", tuple(PLACES)),
)
NUM_CLASSES = [len(COLOURS), 4] + [1 + len(names) for _ in range(2) for _, names in OBJECT_ATTRIBUTES]
"""Number of answers to each question: background, count, then colour, shape, size and place of two things."""

BATCH = 64


def scene_labels(scene: Scene) -> list[int]:
    """The scene's answers; 0 where there is no second thing, or no other kind of it."""
    answers = [list(COLOURS).index(scene.background), len(scene.objects) - 1]
    things = (scene.objects[0], scene.objects[1] if scene.relation else None)
    for thing in things:
        answers += [1 + names.index(getattr(thing, name)) if thing else 0 for name, names in OBJECT_ATTRIBUTES]
    return answers


def new_classifier_head(sizes: NetworkSizes) -> Any:
    """The linear layer that tells the facts from the text encoder's last state."""
    return torch.nn.Linear(sizes.text_width, sum(NUM_CLASSES))


def classification_loss(reader: Any, state: Any, truth: Any, told: Any) -> Any:
    """Mean cross-entropy of the facts, over the prompts that were told at all (`told`: 1 or 0 for each)."""
    answers = reader(state).split(NUM_CLASSES, 1)
    losses = [F.cross_entropy(answer, right, reduction="none") for answer, right in zip(answers, truth.T, strict=True)]
    return (sum(losses) / len(NUM_CLASSES) * told).sum() / told.sum().clamp(min=1)


def training_prompt(scene: Scene, rng: random.Random, dropped: float) -> str:
    """A prompt as people would put it: now and then with a word that means nothing, or a full stop; or none at all."""
    if rng.random() < dropped:
        return ""
    text = scene_prompt(scene, rng)
    if rng.random() < 0.1:
        words = text.split()
        letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))
        words.insert(rng.randrange(len(words)), letters)
        text = " ".join(words)
    return text + ("." if rng.random() < 0.1 else "")


def train_text_encoder(
    work: Path, course: StageConfig, tokenizer: Any, sizes: NetworkSizes, tell: LogLine
) -> tuple[Any, Any]:
    """Give the text encoder and the reader of its facts. Resumes from `work`."""
    torch.manual_seed(0)
    both = torch.nn.ModuleList([new_text_encoder(tokenizer, sizes), new_classifier_head(sizes)])

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(10_000_000 + step)
        scenes = [sample_scene(rng) for _ in range(BATCH)]
        numbers = tokenize(tokenizer, [training_prompt(scene, rng, 0) for scene in scenes])
        truth = torch.tensor([scene_labels(scene) for scene in scenes])
        return {"reading": classification_loss(both[1], both[0](numbers).pooler_output, truth, torch.ones(BATCH))}

    run_training_loop(course, work / "text.pt", both, loss_of, tell)
    return both[0], both[1]
