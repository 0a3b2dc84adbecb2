"""Pretrain the text encoder on a classification task, before the UNet needs it: its last state predicts the scene."""

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.shapes.networks import NetworkSizes, new_text_encoder
from training.shapes.scenes import COLOURS, PLACES, RADIUS, SHAPES, Scene, sample_scene, scene_prompt
from training.shapes.tokenizer import tokenize

OBJECT_ATTRIBUTES = (
    ("colour", tuple(COLOURS)),
    ("shape", SHAPES),
    ("size", tuple(RADIUS)),
    ("place", tuple(PLACES)),
)
NUM_CLASSES = [len(COLOURS), 4] + [1 + len(names) for _ in range(2) for _, names in OBJECT_ATTRIBUTES]
"""Number of classes of each label: background, count, then colour, shape, size and place of two objects."""

BATCH = 64


def scene_labels(scene: Scene) -> list[int]:
    """Return the class of each label of `NUM_CLASSES`; 0 for the labels of a second object that does not exist."""
    answers = [list(COLOURS).index(scene.background), len(scene.objects) - 1]
    objects = (scene.objects[0], scene.objects[1] if scene.relation else None)
    for item in objects:
        answers += [1 + names.index(getattr(item, name)) if item else 0 for name, names in OBJECT_ATTRIBUTES]
    return answers


def new_classifier_head(sizes: NetworkSizes) -> Any:
    """Return a linear layer that predicts the labels from the text encoder's pooled state."""
    return torch.nn.Linear(sizes.text_width, sum(NUM_CLASSES))


def classification_loss(head: Any, state: Any, labels: Any, has_prompt: Any) -> Any:
    """Return the mean cross-entropy of the labels, over the rows whose `has_prompt` is 1 and not 0."""
    logits = head(state).split(NUM_CLASSES, 1)
    losses = [F.cross_entropy(scores, right, reduction="none") for scores, right in zip(logits, labels.T, strict=True)]
    return (sum(losses) / len(NUM_CLASSES) * has_prompt).sum() / has_prompt.sum().clamp(min=1)


def training_prompt(scene: Scene, rng: random.Random, dropped: float) -> str:
    """Return a varied prompt: sometimes with a random word or a full stop, and empty with the probability `dropped`."""
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
    work: Path, stage: StageConfig, tokenizer: Any, sizes: NetworkSizes, log: LogLine
) -> tuple[Any, Any]:
    """Return the text encoder and its classifier head. Resumes from `work`."""
    torch.manual_seed(0)
    networks = torch.nn.ModuleList([new_text_encoder(tokenizer, sizes), new_classifier_head(sizes)])

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(10_000_000 + step)
        scenes = [sample_scene(rng) for _ in range(BATCH)]
        ids = tokenize(tokenizer, [training_prompt(scene, rng, 0) for scene in scenes])
        labels = torch.tensor([scene_labels(scene) for scene in scenes])
        return {
            "classification": classification_loss(
                networks[1], networks[0](ids).pooler_output, labels, torch.ones(BATCH)
            )
        }

    run_training_loop(stage, work / "text.pt", networks, loss_of, log)
    return networks[0], networks[1]
