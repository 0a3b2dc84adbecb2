"""Train the UNet on the latents, together with the pretrained text encoder."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.shapes.latent_dataset import LatentDataset
from training.shapes.networks import NetworkSizes, new_scheduler, new_unet
from training.shapes.tokenizer import tokenize
from training.shapes.train_text_encoder import classification_loss, scene_labels, training_prompt

BATCH = 32
PROMPT_DROPOUT = 0.1
"""Share of the images that are trained without a prompt, which classifier-free guidance needs."""

CLASSIFICATION_WEIGHT = 0.1
"""Loss weight of the text encoder's classification task, which keeps it from forgetting the words."""

HIGH_NOISE_TIMESTEP = 600
"""Half of the sampled timesteps are above this one: only there do prompts add to what the noisy latents show."""


def train_unet(
    work: Path,
    stage: StageConfig,
    dataset: LatentDataset,
    tokenizer: Any,
    text: tuple[Any, Any],
    sizes: NetworkSizes,
    group: ProcessGroup,
    log: LogLine,
    on_save: Callable[[int, Any, Any], None],
) -> tuple[Any, Any]:
    """Return the moving averages of text encoder and UNet. Resumes from `work`.

    `text` is the text encoder and its classifier head. `on_save(step, text_encoder, unet)` is called with the averages
    whenever the state is written.
    """
    torch.manual_seed(0)
    encoder, head = text
    unet = new_unet(sizes)
    network = torch.nn.ModuleList([encoder, head, unet])
    labels = torch.tensor([scene_labels(scene) for scene in dataset.scenes])
    alphas = new_scheduler().alphas_cumprod

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(20_000_000 + step)
        pick = torch.randint(len(dataset.means), (BATCH,))
        texts = group.shard([training_prompt(dataset.scenes[i], rng, PROMPT_DROPOUT) for i in pick.tolist()])
        timesteps = group.shard(_sample_timesteps())
        latents, noise = (group.shard(sample) for sample in torch.randn(2, BATCH, *dataset.means.shape[1:]))
        pick = group.shard(pick)
        latents = dataset.means[pick] + dataset.deviations[pick] * latents
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        states = encoder(tokenize(tokenizer, texts))
        velocity = unet(
            noisy.contiguous(memory_format=torch.channels_last), timesteps, states.last_hidden_state, return_dict=False
        )[0]
        has_prompt = torch.tensor([float(text != "") for text in texts])
        classification = classification_loss(head, states.pooler_output, labels[pick], has_prompt)
        return {
            "denoising": (dataset.weights[pick] * (velocity - target).square()).mean(),
            "classification": CLASSIFICATION_WEIGHT * classification,
        }

    def save_average(step: int, average: Any) -> None:
        on_save(step, average[0], average[2])

    average = run_training_loop(stage, work / "unet.pt", network, loss_of, log, save_average, group)
    return average[0], average[2]


def _sample_timesteps() -> Any:
    """Return a timestep for each row of the batch, stratified within both halves."""
    spread = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH
    low, high = (
        2 * HIGH_NOISE_TIMESTEP * spread,
        HIGH_NOISE_TIMESTEP + 2 * (1000 - HIGH_NOISE_TIMESTEP) * (spread - 0.5),
    )
    return torch.where(spread < 0.5, low, high).long().clamp(max=999)
