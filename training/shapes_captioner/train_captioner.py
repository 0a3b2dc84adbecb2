"""Train the whole model on conversations about pictures: it learns to continue a prompt with the true answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from training.common.mixed_precision import Bfloat16Linears
from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.shapes_captioner.conversations import (
    NO_KNOWN_SHAPES,
    NO_PICTURE,
    SYSTEM_PROMPTS,
    Turn,
    fixed_turns,
    sample_turns,
)
from training.shapes_captioner.networks import IMAGE_TEXT, to_tiles
from training.shapes_captioner.pictures import sample_picture
from training.shapes_captioner.rendering import render_other, render_varied
from training.shapes_captioner.tokenizer import END, PAD, START

BATCH = 64
SEED = 50_000_000

TURNS = (1, 1, 2, 3)
"""Numbers of turns of a conversation. All conversations of a step have the same, so that little is padded."""

SECOND_PICTURE_SHARE = 0.2
"""Share of the steps whose conversations go on with another picture."""

NO_PICTURE_SHARE, OTHER_PICTURE_SHARE = 0.02, 0.03
SYSTEM_SHARE = 0.1
PICTURE_LAST_SHARE = 0.3
"""Share of the pictures that come after their question."""

NOISE_SHARE = 0.15
"""Share of the questions with random tokens, so that words that the training lacks change little."""

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Conversation:
    """Token ids, the same with `IGNORED` in place of all that the model does not say, and the pictures."""

    ids: list[int]
    labels: list[int]
    images: list[Image.Image]


def train_captioner(
    work: Path,
    stage: StageConfig,
    captioner: Any,
    tokenizer: Any,
    group: ProcessGroup,
    log: LogLine,
    on_save: Callable[[int, Any], None],
) -> Any:
    """Return the moving average of the model. Resumes from `work`; `on_save(step, model)` gets the average."""

    def loss_of(step: int) -> dict[str, Any]:
        choice = random.Random(SEED + step)
        num_turns, num_pictures = choice.choice(TURNS), 1 + (choice.random() < SECOND_PICTURE_SHARE)
        rows = [
            sample_conversation(tokenizer, random.Random(SEED + step * BATCH + row), num_turns, num_pictures)
            for row in group.shard(range(BATCH))
        ]
        with Bfloat16Linears():
            return {"answers": answer_loss(captioner, rows, tokenizer.token_to_id(PAD))}

    return run_training_loop(stage, work / "captioner.pt", captioner, loss_of, log, on_save, group)


def answer_loss(captioner: Any, rows: list[Conversation], pad: int) -> Any:
    """Return the mean cross-entropy of the tokens of the answers."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (longest - len(row.ids)) for row in rows])
    labels = torch.tensor([row.labels + [IGNORED] * (longest - len(row.labels)) for row in rows])
    images = [image for row in rows for image in row.images]
    # Padding comes last, where causal attention keeps it from all other tokens.
    states = captioner.model(
        input_ids=ids, pixel_values=to_tiles(images)[None] if images else None, use_cache=False
    ).last_hidden_state
    said = labels[:, 1:] != IGNORED
    return F.cross_entropy(captioner.lm_head(states[:, :-1][said]), labels[:, 1:][said])


def sample_conversation(tokenizer: Any, rng: random.Random, num_turns: int, num_pictures: int = 1) -> Conversation:
    """Return a random conversation with so many turns about each of so many pictures."""
    ids: list[int] = []
    labels: list[int] = []
    images: list[Image.Image] = []

    def add(text: str, said: bool = False) -> None:
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        ids.extend(tokens)
        labels.extend(tokens if said else [IGNORED] * len(tokens))

    if rng.random() < SYSTEM_SHARE:
        add(f"{START}system\n{rng.choice(SYSTEM_PROMPTS)}{END}\n")
    for _ in range(num_pictures):
        turns, shown = _about_a_picture(rng, num_turns)
        images += shown
        picture = IMAGE_TEXT if shown else ""
        for turn in turns:
            question = _with_noise(turn.question, tokenizer, rng) if rng.random() < NOISE_SHARE else turn.question
            text = question + picture if rng.random() < PICTURE_LAST_SHARE else picture + question
            add(f"{START}user\n{text}{END}\n{START}assistant\n")
            add(f"{turn.answer}{END}", said=True)
            add("\n")
            picture = ""
    return Conversation(ids, labels, images)


def _about_a_picture(rng: random.Random, num_turns: int) -> tuple[list[Turn], list[Image.Image]]:
    kind = rng.random()
    if kind < NO_PICTURE_SHARE:
        return fixed_turns(NO_PICTURE, num_turns, rng), []
    if kind < NO_PICTURE_SHARE + OTHER_PICTURE_SHARE:
        return fixed_turns(NO_KNOWN_SHAPES, num_turns, rng), [render_other(rng)]
    picture = sample_picture(rng)
    return sample_turns(picture, num_turns, rng), [render_varied(picture, rng)]


def _with_noise(question: str, tokenizer: Any, rng: random.Random) -> str:
    """Add one to four random tokens between the words of a question."""
    words = question.split(" ")
    for _ in range(rng.randint(1, 4)):
        token = tokenizer.decode([rng.randrange(3, tokenizer.get_vocab_size())])
        words.insert(rng.randint(0, len(words)), token)
    return " ".join(words)
