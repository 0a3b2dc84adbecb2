"""Train the transformer by flow matching: on single frames first, then on clips, from a prompt or from their first
frame and a prompt."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.common.mixed_precision import Bfloat16Linears
from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.moving_shapes.latent_dataset import LatentDataset
from training.moving_shapes.networks import NetworkSizes, new_transformer
from training.moving_shapes.tokenizer import tokenize
from training.moving_shapes.train_text_encoder import training_prompt

BATCH = 32
FRAME_BATCH = 64
FRAME_SHARE = 0.1
"""Share of the steps, the first ones, on the first frames alone: they teach colours and shapes cheaply."""

IMAGE_PERIOD = 4
"""One step in so many has clean first frames at timestep 0, as image to video has."""

PROMPT_DROPOUT = 0.1
"""Share of the clips that are trained without a prompt, which classifier-free guidance needs."""

PROMPT_TOKENS = 24
LONG_PROMPT_TOKENS, LONG_PROMPT_PERIOD = 128, 8
"""One step in so many pads its prompts further, so that any number of padding tokens is ignored."""

HIGH_NOISE_SHARE = 0.5
HIGH_NOISE_SHIFT = 5.0
"""Half of the noise levels are uniform; the others are shifted towards pure noise, where the motion is decided."""

MIN_NOISE = 0.002


def train_transformer(
    work: Path,
    stage: StageConfig,
    dataset: LatentDataset,
    tokenizer: Any,
    encoder: Any,
    sizes: NetworkSizes,
    group: ProcessGroup,
    log: LogLine,
    on_save: Callable[[int, Any], None],
) -> Any:
    """Return the moving average of the `WanTransformer3DModel`. Resumes from `work`.

    `encoder` is the frozen text encoder. `on_save(step, transformer)` is called with the average whenever the state is
    written.
    """
    torch.manual_seed(0)
    transformer = new_transformer(sizes)
    # Blocks start as the identity, and the output at zero.
    for name, weight in transformer.named_parameters():
        if name.startswith("proj_out") or name.endswith(("attn2.to_out.0.weight", "attn2.to_out.0.bias")):
            torch.nn.init.zeros_(weight)

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(20_000_000 + step)
        single = step < FRAME_SHARE * stage.steps
        batch = FRAME_BATCH if single else BATCH
        pick = torch.randint(len(dataset.means), (batch,))
        texts = [
            "" if rng.random() < PROMPT_DROPOUT else training_prompt(dataset.scenes[i], rng) for i in pick.tolist()
        ]
        noise_levels = group.shard(sample_noise_levels(batch)).view(-1, 1, 1, 1, 1)
        samples = torch.randn(2, batch, *dataset.means.shape[1:])
        sample, noise = group.shard(samples[0]), group.shard(samples[1])
        pick = group.shard(pick)
        frames = slice(0, 1 if single else None)
        latents = (dataset.means[pick].float() + dataset.deviations[pick].float() * sample)[:, :, frames]
        weights, noise = dataset.weights[pick].float()[:, :, frames], noise[:, :, frames]
        levels = noise_levels.expand(-1, 1, *latents.shape[2:])
        from_image = not single and step % IMAGE_PERIOD == IMAGE_PERIOD - 1
        if from_image:
            levels = levels.clone()
            levels[:, :, 0] = 0
            weights = weights * (levels > 0)
        timesteps = 1000 * levels[:, 0]
        # A timestep for each token costs more than one for each clip, and only clean frames need it.
        timesteps = timesteps[:, :, ::2, ::2].flatten(1) if from_image else timesteps[:, 0, 0, 0]
        length = LONG_PROMPT_TOKENS if step % LONG_PROMPT_PERIOD == 1 else PROMPT_TOKENS
        states = encode_prompts(encoder, tokenizer, group.shard(texts), length)
        with Bfloat16Linears():
            velocity = transformer((1 - levels) * latents + levels * noise, timesteps, states, return_dict=False)[0]
        return {
            "image to video" if from_image else "denoising": (weights * (velocity - noise + latents).square()).mean()
        }

    return run_training_loop(stage, work / "transformer.pt", transformer, loss_of, log, on_save, group)


def encode_prompts(encoder: Any, tokenizer: Any, texts: list[str], length: int) -> Any:
    """Return the states of the prompts [texts, length, width], zeros after their ends, as `WanPipeline` does."""
    ids, mask = tokenize(tokenizer, texts, length)
    longest = int(mask.sum(1).max())
    with torch.no_grad():
        states = encoder(ids[:, :longest], mask[:, :longest]).last_hidden_state * mask[:, :longest, None]
    return torch.nn.functional.pad(states, (0, 0, 0, length - longest))


def sample_noise_levels(count: int) -> Any:
    """Return a noise level 0..1 for each row of a batch, stratified, in random order."""
    spread = (torch.arange(count) + torch.rand(count)) / count
    high = (spread / HIGH_NOISE_SHARE).clamp(max=1)
    high = HIGH_NOISE_SHIFT * high / (1 + (HIGH_NOISE_SHIFT - 1) * high)
    even = (spread - HIGH_NOISE_SHARE) / (1 - HIGH_NOISE_SHARE)
    levels = torch.where(spread < HIGH_NOISE_SHARE, high, even)
    return levels[torch.randperm(count)].clamp(min=MIN_NOISE)
