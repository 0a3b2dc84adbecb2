"""The pictures that the UNet learns from, as the VAE sees them: encoded once, used many times."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from training.shapes.rendering import ImageArray, render_dataset
from training.shapes.scenes import COLOURS, Scene
from training.shapes.train_vae import to_tensor
from training.shapes.training_loop import LogLine

CHUNK = 64
OBJECT_WEIGHT = 3.0
EDGE_WEIGHT = 2.0
"""What cells with a part of an object, or with its edge, weigh more in the loss than plain ones: most are plain."""


@dataclass(frozen=True, slots=True)
class LatentDataset:
    """Scaled latents' means and deviations [n, 4, 16, 16], the weights of their cells [n, 1, 16, 16] (mean 1), and
    the scenes they show."""

    means: Any
    deviations: Any
    weights: Any
    scenes: list[Scene]


def load_or_encode_latents(work: Path, vae: Any, count: int, tell: LogLine) -> LatentDataset:
    """Encode `count` pictures, or load those that `work` has. Scenes are drawn anew: the seeds say which they were."""
    file = work / "pool.pt"
    chunks = range(0, count, CHUNK)
    if file.exists():
        stored = torch.load(file, weights_only=True)
        scenes = [scene for first in chunks for scene in render_dataset(CHUNK, 1000 + first)[1]]
        return LatentDataset(stored["means"], stored["deviations"], stored["weights"], scenes)
    means, deviations, weights, scenes = [], [], [], []
    factor = vae.config.scaling_factor
    for first in chunks:
        pictures, some = render_dataset(CHUNK, 1000 + first)
        with torch.no_grad():
            latents = vae.encode(to_tensor(pictures).contiguous(memory_format=torch.channels_last)).latent_dist
        means.append(latents.mean * factor)
        deviations.append(latents.std * factor)
        weights.append(_weights(pictures, some))
        scenes += some
        if first % (20 * CHUNK) == 0:
            tell(f"pool: {first + CHUNK} of {count} pictures encoded")
    tensors = {"means": torch.cat(means), "deviations": torch.cat(deviations), "weights": torch.cat(weights)}
    torch.save(tensors, file)
    return LatentDataset(**tensors, scenes=scenes)


def _weights(pictures: ImageArray, scenes: list[Scene]) -> Any:
    backgrounds = torch.tensor([COLOURS[scene.background] for scene in scenes])[:, :, None, None]
    covered = (torch.from_numpy(pictures).permute(0, 3, 1, 2) != backgrounds).any(1, keepdim=True).float()
    any_covered, all_covered = F.max_pool2d(covered, 8), -F.max_pool2d(-covered, 8)
    near = F.max_pool2d(any_covered, 3, 1, 1)
    weights = 1 + OBJECT_WEIGHT * near + EDGE_WEIGHT * (any_covered - all_covered)
    return weights / weights.mean((1, 2, 3), keepdim=True)
