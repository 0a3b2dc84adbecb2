"""Trains the VAE: crops first, then whole pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from training.shapes.judge import judge
from training.shapes.networks import NetworkSizes, new_vae
from training.shapes.rendering import IMAGE_SIZE, ImageArray, render_dataset
from training.shapes.scenes import Scene
from training.shapes.training_loop import LogLine, StageConfig, run_training_loop
from training.shapes.vae_initialization import init_colour_passthrough

CROP_SIZE = 64
FULL_IMAGE_FRACTION = 0.17
"""The last part of the course sees whole pictures: what lies far from an edge has to stay plain over all of it."""

KL_WEIGHT = 1e-4


def train_vae(work: Path, course: StageConfig, pictures: int, sizes: NetworkSizes, tell: LogLine) -> Any:
    """Give the trained `AutoencoderKL` with its scaling factor set. Resumes from `work`."""
    torch.manual_seed(0)
    vae = new_vae(sizes)
    seen, _ = render_dataset(pictures, seed=1)
    unseen, scenes = render_dataset(64, seed=2, held_out=True)
    init_colour_passthrough(vae, to_tensor(unseen))

    def loss_of(step: int) -> dict[str, Any]:
        whole = step >= course.steps * (1 - FULL_IMAGE_FRACTION)
        x = (_crops(seen, 4, IMAGE_SIZE) if whole else _crops(seen, 8, CROP_SIZE)).contiguous(
            memory_format=torch.channels_last
        )
        latents = vae.encode(x).latent_dist
        y = vae.decode(latents.sample()).sample
        kl = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
        return {"l1": F.l1_loss(y, x), "mse": F.mse_loss(y, x), "kl": KL_WEIGHT * kl}

    def on_keep(step: int, network: Any) -> None:
        decibels, right = reconstruction_quality(network, unseen, scenes)
        tell(f"{course.name}: step {step}, {decibels:.1f} dB, {right:.3f} of the pictures right after a round trip")

    run_training_loop(course, work / "vae.pt", vae, loss_of, tell, on_keep)
    vae.requires_grad_(False).eval()
    # Latents of unit variance, as every scheduler expects them.
    latents = vae.encode(to_tensor(seen[:256])).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae


def to_tensor(pictures: ImageArray) -> Any:
    """Pictures uint8 [n, h, w, 3] as float32 [n, 3, h, w] in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(images: Any) -> ImageArray:
    """Float [n, 3, h, w] in -1..1 as pictures uint8 [n, h, w, 3]."""
    levels = images.float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def reconstruction_quality(vae: Any, pictures: ImageArray, scenes: list[Scene]) -> tuple[float, float]:
    """PSNR in dB of a round trip through the VAE, and the part of its pictures that the judge still finds right."""
    with torch.no_grad():
        x = to_tensor(pictures)
        y = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in x.split(16)]).clamp(-1, 1)
    decibels = (-10 * torch.log10(((x - y) / 2).square().mean((1, 2, 3)))).mean().item()
    right = [judge(picture, scene)["all"] for picture, scene in zip(to_images(y), scenes, strict=True)]
    return decibels, float(np.mean(right))


def _crops(pictures: ImageArray, count: int, side: int) -> Any:
    places = IMAGE_SIZE - side + 1
    which, ys, xs = (torch.randint(n, (count,)).tolist() for n in (len(pictures), places, places))
    return to_tensor(np.stack([pictures[i, y : y + side, x : x + side] for i, y, x in zip(which, ys, xs, strict=True)]))
