"""Trains the UNet, and the text encoder on with it, on the pool of latents."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from builders.shapes.course import Course, Tell, follow
from builders.shapes.crew import Crew
from builders.shapes.latents import Pool
from builders.shapes.networks import Sizes, new_scheduler, new_unet
from builders.shapes.text_training import facts, reading_loss, wording
from builders.shapes.tokenizer import tokenize

BATCH = 32
DROPPED = 0.1
"""The part of the pictures that are shown without a prompt: what guidance is measured against."""

READING = 0.1
"""Weight of the text encoder's own task, which keeps it from forgetting what words say."""

NOISIEST = 600
"""Half of all training steps are above this timestep: only there do words tell more than the noisy latents do."""


def train_unet(
    work: Path,
    course: Course,
    pool: Pool,
    tokenizer: Any,
    text: tuple[Any, Any],
    sizes: Sizes,
    crew: Crew,
    tell: Tell,
    on_keep: Callable[[int, Any, Any], None],
) -> tuple[Any, Any]:
    """Give the averaged text encoder and UNet; `text` is the encoder and its reader. Resumes from `work`.

    `on_keep(step, text_encoder, unet)` is called with the averages whenever the state is written.
    """
    torch.manual_seed(0)
    encoder, reader = text
    unet = new_unet(sizes)
    network = torch.nn.ModuleList([encoder, reader, unet])
    truths = torch.tensor([facts(scene) for scene in pool.scenes])
    alphas = new_scheduler().alphas_cumprod

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(20_000_000 + step)
        pick = torch.randint(len(pool.means), (BATCH,))
        texts = crew.part([wording(pool.scenes[i], rng, DROPPED) for i in pick.tolist()])
        times = crew.part(_times())
        latents, noise = (crew.part(drawn) for drawn in torch.randn(2, BATCH, *pool.means.shape[1:]))
        pick = crew.part(pick)
        latents = pool.means[pick] + pool.deviations[pick] * latents
        alpha = alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        states = encoder(tokenize(tokenizer, texts))
        velocity = unet(
            noisy.contiguous(memory_format=torch.channels_last), times, states.last_hidden_state, return_dict=False
        )[0]
        told = torch.tensor([float(text != "") for text in texts])
        return {
            "denoising": (pool.weights[pick] * (velocity - target).square()).mean(),
            "reading": READING * reading_loss(reader, states.pooler_output, truths[pick], told),
        }

    def kept(step: int, average: Any) -> None:
        on_keep(step, average[0], average[2])

    average = follow(course, work / "unet.pt", network, loss_of, tell, kept, crew)
    return average[0], average[2]


def _times() -> Any:
    """A timestep for each row, evenly spread within both halves."""
    spread = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH
    low, high = 2 * NOISIEST * spread, NOISIEST + 2 * (1000 - NOISIEST) * (spread - 0.5)
    return torch.where(spread < 0.5, low, high).long().clamp(max=999)
