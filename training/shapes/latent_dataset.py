"""The UNet's training images as latents, encoded once by the VAE."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from training.common.training_loop import LogLine
from training.shapes.rendering import ImageArray, render_dataset
from training.shapes.scenes import COLOURS, Scene
from training.shapes.train_vae import to_tensor

CHUNK = 64
OBJECT_WEIGHT = 3.0
EDGE_WEIGHT = 2.0
"""Added loss weights of latent cells near an object, and of cells with its edge. Most cells are plain background."""


@dataclass(frozen=True, slots=True)
class LatentDataset:
    """Means and standard deviations [n, 4, 16, 16] of scaled latents, the loss weights of their cells [n, 1, 16, 16]
    with a mean of 1, and their scenes."""

    means: Any
    deviations: Any
    weights: Any
    scenes: list[Scene]


def load_or_encode_latents(work: Path, vae: Any, count: int, log: LogLine) -> LatentDataset:
    """Encode `count` images, or load the latents from `work`; the scenes are sampled again from the same seeds."""
    file = work / "pool.pt"
    chunks = range(0, count, CHUNK)
    if file.exists():
        stored = torch.load(file, weights_only=True)
        scenes = [scene for first in chunks for scene in render_dataset(CHUNK, 1000 + first)[1]]
        return LatentDataset(stored["means"], stored["deviations"], stored["weights"], scenes)
    means, deviations, weights, scenes = [], [], [], []
    factor = vae.config.scaling_factor
    for first in chunks:
        images, chunk_scenes = render_dataset(CHUNK, 1000 + first)
        with torch.no_grad():
            latents = vae.encode(to_tensor(images).contiguous(memory_format=torch.channels_last)).latent_dist
        means.append(latents.mean * factor)
        deviations.append(latents.std * factor)
        weights.append(_weights(images, chunk_scenes))
        scenes += chunk_scenes
        if first % (20 * CHUNK) == 0:
            log(f"pool: {first + CHUNK} of {count} images encoded")
    tensors = {"means": torch.cat(means), "deviations": torch.cat(deviations), "weights": torch.cat(weights)}
    torch.save(tensors, file)
    return LatentDataset(**tensors, scenes=scenes)


def _weights(images: ImageArray, scenes: list[Scene]) -> Any:
    backgrounds = torch.tensor([COLOURS[scene.background] for scene in scenes])[:, :, None, None]
    is_object = (torch.from_numpy(images).permute(0, 3, 1, 2) != backgrounds).any(1, keepdim=True).float()
    any_object, all_object = F.max_pool2d(is_object, 8), -F.max_pool2d(-is_object, 8)
    near = F.max_pool2d(any_object, 3, 1, 1)
    weights = 1 + OBJECT_WEIGHT * near + EDGE_WEIGHT * (any_object - all_object)
    return weights / weights.mean((1, 2, 3), keepdim=True)
