"""Boxes of faces: squares, shifts, and the removal of those that overlap.

A box is left, top, right, bottom in pixels.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]
"""float64[boxes, 4]."""
Scores = npt.NDArray[np.float64]


def keep_best(
    boxes: Boxes, scores: Scores, max_overlap: float, part_of: Literal["union", "smaller"] = "union"
) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that overlap no better one by more than `max_overlap`, the best first.

    The overlap is a part of the union of two boxes, or of the smaller one.
    """
    areas = ((boxes[:, 2:] - boxes[:, :2]).clip(0)).prod(1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = sides.clip(0).prod(1)
        whole = np.minimum(areas[best], areas[rest]) if part_of == "smaller" else areas[best] + areas[rest] - shared
        order = rest[shared <= max_overlap * whole]
    return np.array(kept, np.intp)


def shift(boxes: Boxes, parts: Boxes) -> Boxes:
    """Move the four sides of each box by parts of its width and height."""
    size = boxes[:, 2:] - boxes[:, :2]
    shifted: Boxes = boxes + parts * np.concatenate([size, size], 1)
    return shifted


def to_squares(boxes: Boxes) -> Boxes:
    """Return squares with the centre and the longer side of each box."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2
    return np.concatenate([centre - half, centre + half], 1)
