"""Train the image encoder to tell what covers each part of a picture, before the text model has to read it.

A cell of the picture has a label of its own, so that the encoder learns from sixteen answers a picture instead of one.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from training.common.mixed_precision import Bfloat16Linears
from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig, run_training_loop
from training.shapes.scenes import COLOURS, SHAPES
from training.shapes_captioner.networks import CELLS, TILE, NetworkSizes, new_captioner, to_tiles
from training.shapes_captioner.pictures import Picture, PlacedShape, sample_picture
from training.shapes_captioner.rendering import coverage, render_varied

BATCH = 64
SEED = 40_000_000

COVERED, EMPTY = 0.05, 0.005
"""A cell belongs to a shape that covers at least the first share of it, and is empty below the second. Cells in between
are not trained on."""

IGNORED = -100
SIZES = ("small", "large")
NUM_CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, len(SIZES) + 1, len(COLOURS))
"""Classes of a cell's shape, colour, size (0 is none) and background."""

MAX_SHAPES = 4


class VisionPretraining(torch.nn.Module):  # type: ignore[misc]
    """The image encoder and the connector of a model, with a classifier of cells and one of the number of shapes."""

    def __init__(self, captioner: Any, sizes: NetworkSizes) -> None:
        super().__init__()
        self.vision = captioner.model.vision_model
        self.connector = captioner.model.connector
        self.cells = torch.nn.Linear(sizes.text_width, sum(NUM_CLASSES))
        self.count = torch.nn.Linear(sizes.text_width, MAX_SHAPES + 1)

    def forward(self, tiles: Any) -> tuple[Any, Any]:
        """Return the logits of cells [n, IMAGE_TOKENS, sum(NUM_CLASSES)] and of the count [n, MAX_SHAPES + 1]."""
        vectors = self.connector(self.vision(tiles).last_hidden_state)
        return self.cells(vectors), self.count(vectors.mean(1))


def train_vision(
    work: Path, stage: StageConfig, tokenizer: Any, sizes: NetworkSizes, group: ProcessGroup, log: LogLine
) -> Any:
    """Return a model whose image encoder and connector are trained. Resumes from `work`."""
    torch.manual_seed(0)
    captioner = new_captioner(tokenizer, sizes)
    networks = VisionPretraining(captioner, sizes)

    def loss_of(step: int) -> dict[str, Any]:
        images, labels, counts = [], [], []
        for row in group.shard(range(BATCH)):
            rng = random.Random(SEED + step * BATCH + row)
            picture = sample_picture(rng)
            images.append(render_varied(picture, rng))
            labels.append(cell_labels(picture))
            counts.append(len(picture.shapes))
        with Bfloat16Linears():
            cells, count = networks(to_tiles(images))
        truth = torch.from_numpy(np.stack(labels))
        losses = {
            name: F.cross_entropy(logits.flatten(0, 1), truth[..., number].flatten(), ignore_index=IGNORED)
            for number, (name, logits) in enumerate(
                zip(("shape", "colour", "size", "background"), cells.split(NUM_CLASSES, -1), strict=True)
            )
        }
        return {**losses, "count": 0.2 * F.cross_entropy(count, torch.tensor(counts))}

    run_training_loop(stage, work / "vision.pt", networks, loss_of, log, group=group)
    return captioner


def cell_labels(picture: Picture) -> Any:
    """Return the classes of each cell, int64[IMAGE_TOKENS, 4]: shape, colour and size of what covers it most, and the
    background. A size that is not clear and a cell that is hardly covered are `IGNORED`."""
    labels = np.zeros((CELLS, CELLS, 4), np.int64)
    labels[..., 3] = list(COLOURS).index(picture.background)
    if not picture.shapes:
        return labels.reshape(-1, 4)
    shares = np.stack([_cell_shares(item, picture.extent) for item in picture.shapes])
    most = shares.argmax(0)
    classes = np.array(
        [
            (
                SHAPES.index(item.shape) + 1,
                list(COLOURS).index(item.colour) + 1,
                SIZES.index(next(iter(item.sizes))) + 1 if len(item.sizes) == 1 else IGNORED,
            )
            for item in picture.shapes
        ]
    )
    share = shares.max(0)[..., None]
    labels[..., :3] = np.where(share >= COVERED, classes[most], np.where(share < EMPTY, 0, IGNORED))
    return labels.reshape(-1, 4)


def _cell_shares(item: PlacedShape, extent: tuple[float, float]) -> Any:
    """Return the share of each cell that a shape covers, [CELLS, CELLS]; a picture that is not square is squeezed."""
    covered = Image.fromarray(coverage(item, TILE, extent))
    return np.asarray(covered.resize((CELLS, CELLS), Image.Resampling.BOX))
