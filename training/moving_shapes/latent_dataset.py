"""The transformer's training clips as latents, encoded once by the VAE."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine
from training.moving_shapes.rendering import Clip, render_dataset, sample_dataset
from training.moving_shapes.scenes import MovingScene
from training.moving_shapes.train_vae import to_tensor
from training.shapes.scenes import COLOURS

CHUNK = 64
BATCH = 16
OBJECT_WEIGHT = 3.0
MOTION_WEIGHT = 3.0
"""Added loss weights of latent cells near the shape, and of cells whose pixels change. Most cells are background."""

MIN_CHANGE = 24
"""Change of a colour level between two frames that counts as motion."""


@dataclass(frozen=True, slots=True)
class LatentDataset:
    """Means and standard deviations float16 [n, channels, frames, h, w] of normalised latents, the loss weights of
    their cells float16 [n, 1, frames, h, w] with a mean of 1, and their scenes."""

    means: Any
    deviations: Any
    weights: Any
    scenes: list[MovingScene]


def load_or_encode_latents(work: Path, vae: Any, count: int, group: ProcessGroup, log: LogLine) -> LatentDataset:
    """Encode `count` clips, or load the latents from `work`; the scenes are sampled again from the same seeds.

    The processes of a group encode different chunks, and wait for each other.
    """
    folder = work / "pool"
    folder.mkdir(exist_ok=True)
    chunks = list(range(0, count, CHUNK))
    for number, first in enumerate(group.shard(chunks)):
        file = folder / f"{first}.pt"
        if file.exists():
            continue
        clips, scenes = render_dataset(CHUNK, _seed(first))
        fresh = file.with_suffix(".new")
        torch.save(_encode(vae, clips, scenes), fresh)
        fresh.replace(file)
        if number % 16 == 0:
            log(f"pool: {first + CHUNK} of {count} clips encoded")
    group.barrier()
    stored = [torch.load(folder / f"{first}.pt", weights_only=True) for first in chunks]
    tensors = {name: torch.cat([chunk[name] for chunk in stored]) for name in ("means", "deviations", "weights")}
    return LatentDataset(
        **tensors, scenes=[scene for first in chunks for scene, _ in sample_dataset(CHUNK, _seed(first))]
    )


def _seed(first: int) -> int:
    return 1000 + first


def _encode(vae: Any, clips: Clip, scenes: list[MovingScene]) -> dict[str, Any]:
    average, deviation = (
        torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    means, deviations = [], []
    for part in to_tensor(clips).split(BATCH):
        with torch.no_grad():
            latents = vae.encode(part).latent_dist
        means.append((latents.mean - average) / deviation)
        deviations.append(latents.std / deviation)
    return {
        "means": torch.cat(means).half(),
        "deviations": torch.cat(deviations).half(),
        "weights": _weights(clips, scenes).half(),
    }


def _weights(clips: Clip, scenes: list[MovingScene]) -> Any:
    backgrounds = torch.tensor([COLOURS[scene.background] for scene in scenes])[:, :, None, None, None]
    levels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).int()
    is_object = (levels != backgrounds).any(1, keepdim=True).float()
    changed = F.pad((levels.diff(dim=2).abs() > MIN_CHANGE).any(1, keepdim=True).float(), (0, 0, 0, 0, 1, 0))
    near = F.max_pool3d(_cells(is_object), (1, 3, 3), 1, (0, 1, 1))
    weights = 1 + OBJECT_WEIGHT * near + MOTION_WEIGHT * _cells(changed)
    return weights / weights.mean((1, 2, 3, 4), keepdim=True)


def _cells(values: Any) -> Any:
    """Return the largest value in each latent cell: 8 by 8 pixels of the first frame, or of four later ones."""
    first = F.max_pool3d(values[:, :, :1], (1, 8, 8))
    return torch.cat([first, F.max_pool3d(values[:, :, 1:], (4, 8, 8))], 2)
