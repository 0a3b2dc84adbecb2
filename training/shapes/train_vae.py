"""Train the VAE, on crops first and then on full images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.shapes.judge import judge
from training.shapes.networks import NetworkSizes, new_vae
from training.shapes.rendering import IMAGE_SIZE, ImageArray, render_dataset
from training.shapes.scenes import Scene
from training.shapes.vae_initialization import init_colour_passthrough

CROP_SIZE = 64
FULL_IMAGE_FRACTION = 0.17
"""Share of the steps, the last ones, on full images: areas far from an edge must stay plain."""

KL_WEIGHT = 1e-4


def train_vae(work: Path, stage: StageConfig, num_images: int, sizes: NetworkSizes, log: LogLine) -> Any:
    """Train on `num_images` images; return the `AutoencoderKL` with its scaling factor set. Resumes from `work`."""
    torch.manual_seed(0)
    vae = new_vae(sizes)
    train_images, _ = render_dataset(num_images, seed=1)
    test_images, scenes = render_dataset(64, seed=2, held_out=True)
    init_colour_passthrough(vae, to_tensor(test_images))

    def loss_of(step: int) -> dict[str, Any]:
        full = step >= stage.steps * (1 - FULL_IMAGE_FRACTION)
        x = (_crops(train_images, 4, IMAGE_SIZE) if full else _crops(train_images, 8, CROP_SIZE)).contiguous(
            memory_format=torch.channels_last
        )
        latents = vae.encode(x).latent_dist
        y = vae.decode(latents.sample()).sample
        kl = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
        return {"l1": F.l1_loss(y, x), "mse": F.mse_loss(y, x), "kl": KL_WEIGHT * kl}

    def on_save(step: int, network: Any) -> None:
        decibels, right = reconstruction_quality(network, test_images, scenes)
        log(f"{stage.name}: step {step}, {decibels:.1f} dB, {right:.3f} of the images right after a round trip")

    run_training_loop(stage, work / "vae.pt", vae, loss_of, log, on_save)
    vae.requires_grad_(False).eval()
    # Latents of unit variance, as every scheduler expects them.
    latents = vae.encode(to_tensor(train_images[:256])).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae


def to_tensor(images: ImageArray) -> Any:
    """Convert images uint8 [n, h, w, 3] to float32 [n, 3, h, w] in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(tensor: Any) -> ImageArray:
    """Convert floats [n, 3, h, w] in -1..1 to images uint8 [n, h, w, 3]."""
    levels = tensor.float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def reconstruction_quality(vae: Any, images: ImageArray, scenes: list[Scene]) -> tuple[float, float]:
    """Return the PSNR in dB of a round trip through the VAE, and the share of its images that the judge accepts."""
    with torch.no_grad():
        x = to_tensor(images)
        y = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in x.split(16)]).clamp(-1, 1)
    decibels = (-10 * torch.log10(((x - y) / 2).square().mean((1, 2, 3)))).mean().item()
    right = [judge(image, scene)["all"] for image, scene in zip(to_images(y), scenes, strict=True)]
    return decibels, float(np.mean(right))


def _crops(images: ImageArray, count: int, side: int) -> Any:
    places = IMAGE_SIZE - side + 1
    which, ys, xs = (torch.randint(n, (count,)).tolist() for n in (len(images), places, places))
    return to_tensor(np.stack([images[i, y : y + side, x : x + side] for i, y, x in zip(which, ys, xs, strict=True)]))
