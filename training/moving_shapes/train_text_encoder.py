"""Train the text encoder on a classification task: the state of every token predicts the whole scene.

So cross-attention finds each claim of the prompt wherever it looks. The transformer is trained on the frozen encoder.
"""

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.moving_shapes.networks import NetworkSizes, new_text_encoder
from training.moving_shapes.prompts import scene_prompt
from training.moving_shapes.scenes import MOTIONS, MovingScene, sample_scene
from training.moving_shapes.tokenizer import tokenize
from training.shapes.scenes import COLOURS, SHAPES

ATTRIBUTES = (
    ("background", tuple(COLOURS)),
    ("colour", tuple(COLOURS)),
    ("shape", SHAPES),
    ("motion", MOTIONS),
)
NUM_CLASSES = [1 + len(names) for _, names in ATTRIBUTES]
"""Number of classes of each attribute; class 0 is that of an empty prompt."""

BATCH = 64
EMPTY_SHARE = 0.05


def scene_labels(scene: MovingScene) -> list[int]:
    """Return the class of each attribute."""
    return [1 + names.index(getattr(scene, attribute)) for attribute, names in ATTRIBUTES]


def training_prompt(scene: MovingScene, rng: random.Random) -> str:
    """Return a varied prompt, sometimes with a random word, a full stop or capital letters."""
    text = scene_prompt(scene, rng)
    if rng.random() < 0.1:
        words = text.split()
        letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))
        words.insert(rng.randrange(len(words) + 1), letters)
        text = " ".join(words)
    return text + ("." if rng.random() < 0.1 else "")


def train_text_encoder(
    work: Path, stage: StageConfig, tokenizer: Any, sizes: NetworkSizes, group: ProcessGroup, log: LogLine
) -> Any:
    """Return the trained `UMT5EncoderModel`, frozen. Resumes from `work`."""
    torch.manual_seed(0)
    encoder = new_text_encoder(tokenizer, sizes)
    head = torch.nn.Linear(sizes.text_width, sum(NUM_CLASSES))

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(10_000_000 + step)
        scenes = [sample_scene(rng) if rng.random() >= EMPTY_SHARE else None for _ in range(BATCH)]
        texts = group.shard([training_prompt(scene, rng) if scene else "" for scene in scenes])
        labels = torch.tensor(
            group.shard([scene_labels(scene) if scene else [0] * len(ATTRIBUTES) for scene in scenes])
        )
        ids, mask = tokenize(tokenizer, texts)
        states = encoder(ids, mask).last_hidden_state
        # Each token of a prompt has the labels of its prompt.
        present = mask.bool()
        labels = labels[:, None].expand(-1, mask.shape[1], -1)[present]
        logits = head(states[present]).split(NUM_CLASSES, 1)
        losses = [F.cross_entropy(scores, right) for scores, right in zip(logits, labels.T, strict=True)]
        return {name: loss / len(losses) for (name, _), loss in zip(ATTRIBUTES, losses, strict=True)}

    run_training_loop(stage, work / "text.pt", torch.nn.ModuleList([encoder, head]), loss_of, log, group=group)
    return encoder.requires_grad_(False).eval()
