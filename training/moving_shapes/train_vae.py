"""Train the VAE, on short crops first and then on whole clips; refine its decoder at last."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.moving_shapes.networks import NetworkSizes, new_vae
from training.moving_shapes.rendering import Clip, render_clip, render_dataset
from training.moving_shapes.scenes import sample_scene
from training.moving_shapes.trajectories import CLIP_SIZE, NUM_FRAMES, sample_trajectory
from training.moving_shapes.vae_initialization import init_colour_passthrough

CROP_BATCH, CROP_SIZE, CROP_FRAMES = 8, 32, 9
WHOLE_BATCH = 2
WHOLE_CLIP_SHARE = 0.15
"""Share of the steps, the last ones, on whole clips."""

KL_WEIGHT = 1e-4

OBJECT_WEIGHT = 4.0
"""Weight of the pixels near the shape when the decoder is refined."""

NUM_STATISTICS_CLIPS = 256
"""Clips from which the mean and the deviation of each latent channel are measured."""


def train_vae(work: Path, stage: StageConfig, sizes: NetworkSizes, group: ProcessGroup, log: LogLine) -> Any:
    """Return the trained `AutoencoderKLWan`, with the statistics of its latents in its config. Resumes from `work`."""
    torch.manual_seed(0)
    vae = new_vae(sizes)
    test_clips, _ = render_dataset(32, seed=2, held_out=True)
    init_colour_passthrough(vae, to_tensor(test_clips))
    if group.is_leader:
        log(f"{stage.name}: {reconstruction_decibels(vae, test_clips):.1f} dB before the training")

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(30_000_000 + step)
        whole = step >= stage.steps * (1 - WHOLE_CLIP_SHARE)
        seeds = group.shard([rng.randrange(1 << 40) for _ in range(WHOLE_BATCH if whole else CROP_BATCH)])
        x = to_tensor(np.stack([_training_clip(random.Random(seed), whole) for seed in seeds]))
        latents = vae.encode(x).latent_dist
        y = vae.decode(latents.sample()).sample
        kl = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
        return {"l1": F.l1_loss(y, x), "mse": F.mse_loss(y, x), "kl": KL_WEIGHT * kl}

    def on_save(step: int, network: Any) -> None:
        log(f"{stage.name}: step {step}, {reconstruction_decibels(network, test_clips):.1f} dB")

    run_training_loop(stage, work / "vae.pt", vae, loss_of, log, on_save, group)
    vae.requires_grad_(False).eval()
    if stage.steps:
        _measure_latents(vae)
    return vae


def refine_decoder(work: Path, stage: StageConfig, vae: Any, group: ProcessGroup, log: LogLine) -> None:
    """Train the decoder further on whole clips, with a frozen encoder: the latents stay as they are.

    Pixels near the shape weigh more. Resumes from `work`.
    """
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    test_clips, _ = render_dataset(32, seed=2, held_out=True)

    def loss_of(step: int) -> dict[str, Any]:
        rng = random.Random(40_000_000 + step)
        seeds = group.shard([rng.randrange(1 << 40) for _ in range(WHOLE_BATCH)])
        x = to_tensor(np.stack([_training_clip(random.Random(seed), True) for seed in seeds]))
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.sample()
        errors = (vae.decode(latents).sample - x).abs() * _pixel_weights(x)
        return {"l1": errors.mean(), "mse": (errors * errors.detach()).mean()}

    def on_save(step: int, network: Any) -> None:
        log(f"{stage.name}: step {step}, {reconstruction_decibels(vae, test_clips):.1f} dB")

    run_training_loop(stage, work / "decoder.pt", decoder, loss_of, log, on_save, group)
    decoder.requires_grad_(False)


def _pixel_weights(x: Any) -> Any:
    """Return the weight of each pixel [n, 1, frames, h, w]: `OBJECT_WEIGHT` near the shape, 1 elsewhere."""
    background = x[:, :, :, :1, :1]
    is_object = ((x - background).abs() > 0.05).any(1, keepdim=True).float()
    near = F.max_pool3d(is_object, (1, 5, 5), 1, (0, 2, 2))
    return 1 + (OBJECT_WEIGHT - 1) * near


def _training_clip(rng: random.Random, whole: bool) -> Clip:
    scene = sample_scene(rng)
    trajectory = sample_trajectory(scene.motion, rng)
    clip = render_clip(scene, trajectory)
    if whole:
        return clip
    first = rng.randrange(NUM_FRAMES - CROP_FRAMES + 1)
    x, y = (_crop_start(centres[first + CROP_FRAMES // 2], rng) for centres in (trajectory.x, trajectory.y))
    return clip[first : first + CROP_FRAMES, y : y + CROP_SIZE, x : x + CROP_SIZE]


def _crop_start(centre: float, rng: random.Random) -> int:
    """Return where a crop begins that shows a part of the shape."""
    start = round(centre) - CROP_SIZE // 2 + rng.randint(-CROP_SIZE // 2, CROP_SIZE // 2)
    return min(max(start, 0), CLIP_SIZE - CROP_SIZE)


def _measure_latents(vae: Any) -> None:
    clips, _ = render_dataset(NUM_STATISTICS_CLIPS, seed=3)
    means = torch.cat([vae.encode(to_tensor(part)).latent_dist.mean for part in np.split(clips, 16)])
    deviations, averages = torch.std_mean(means, (0, 2, 3, 4))
    vae.register_to_config(latents_mean=averages.tolist(), latents_std=deviations.tolist())


def to_tensor(clips: Clip) -> Any:
    """Convert clips uint8 [n, frames, h, w, 3] to float32 [n, 3, frames, h, w] in -1..1."""
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)


def to_clips(tensor: Any) -> Clip:
    """Convert floats [n, 3, frames, h, w] in -1..1 to clips uint8 [n, frames, h, w, 3]."""
    levels = tensor.float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 4, 1).numpy())


def reconstruct(vae: Any, clips: Clip) -> Clip:
    """Return clips [n, frames, h, w, 3] after a round trip through the VAE."""
    with torch.no_grad():
        parts = to_tensor(clips).split(8)
        return to_clips(torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in parts]))


def reconstruction_decibels(vae: Any, clips: Clip) -> float:
    """Return the mean PSNR of a round trip through the VAE, in dB."""
    errors = (reconstruct(vae, clips).astype(np.float32) - clips) / 255
    return float(np.mean(-10 * np.log10(np.square(errors).mean((1, 2, 3, 4)))))
