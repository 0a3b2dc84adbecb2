"""Trains the UNet, and the text encoder on with it, on the pool of latents."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.shapes.latent_dataset import LatentDataset
from training.shapes.networks import NetworkSizes, new_scheduler, new_unet
from training.shapes.process_group import ProcessGroup
from training.shapes.tokenizer import tokenize
from training.shapes.train_text_encoder import classification_loss, scene_labels, training_prompt
from training.shapes.training_loop import LogLine, StageConfig, run_training_loop

BATCH = 32
PROMPT_DROPOUT = 0.1
"""The part of the pictures that are shown without a prompt: what guidance is measured against."""

CLASSIFICATION_WEIGHT = 0.1
"""Weight of the text encoder's own task, which keeps it from forgetting what words say."""

HIGH_NOISE_TIMESTEP = 600
"""Half of all training steps are above this timestep: only there do words tell more than the noisy latents do."""


def train_unet(
    work: Path,
    course: StageConfig,
    pool: LatentDataset,
    tokenizer: Any,
    text: tuple[Any, Any],
    sizes: NetworkSizes,
    crew: ProcessGroup,
    tell: LogLine,
    on_keep: Callable[[int, Any, Any], None],
) -> tuple[Any, Any]:
    """Give the averaged text encoder and UNet; `text` is the encoder and its reader. Resumes from `work`.

    `on_keep(step, text_encoder, unet)` is called with the averages whenever the state is written.
    """
    torch.manual_seed(0)
    encoder, reader = text
    unet = new_unet(sizes)
    network = torch.nn.ModuleList([encoder, reader, unet])
    truths = torch.tensor([scene_labels(scene) for scene in pool.scenes])
    alphas = new_scheduler().alphas_cumprod

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(20_000_000 + step)
        pick = torch.randint(len(pool.means), (BATCH,))
        texts = crew.shard([training_prompt(pool.scenes[i], rng, PROMPT_DROPOUT) for i in pick.tolist()])
        times = crew.shard(_times())
        latents, noise = (crew.shard(drawn) for drawn in torch.randn(2, BATCH, *pool.means.shape[1:]))
        pick = crew.shard(pick)
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
            "reading": CLASSIFICATION_WEIGHT * classification_loss(reader, states.pooler_output, truths[pick], told),
        }

    def kept(step: int, average: Any) -> None:
        on_keep(step, average[0], average[2])

    average = run_training_loop(course, work / "unet.pt", network, loss_of, tell, kept, crew)
    return average[0], average[2]


def _times() -> Any:
    """A timestep for each row, evenly spread within both halves."""
    spread = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH
    low, high = (
        2 * HIGH_NOISE_TIMESTEP * spread,
        HIGH_NOISE_TIMESTEP + 2 * (1000 - HIGH_NOISE_TIMESTEP) * (spread - 0.5),
    )
    return torch.where(spread < 0.5, low, high).long().clamp(max=999)
