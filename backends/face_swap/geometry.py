"""Geometry of pictures: similarity transforms, and sampling of pixels along a map.

Points are (x, y) in pixels. The pixel in row r and column c covers c to c + 1 and r to r + 1.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
"""uint8[height, width, 3], RGB."""
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
"""bool[height, width]."""
Points = npt.NDArray[np.float64]
"""float64[points, 2]: x and y."""
Matrix = npt.NDArray[np.float64]
"""float64[2, 3]: maps (x, y, 1) to (x, y)."""


def fit_similarity(source: Points, target: Points) -> Matrix:
    """Return the rotation, scaling and shift that map `source` to `target` with the least squared distance (Umeyama).

    There are at least two different points.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    one, other = source - source_mean, target - target_mean
    left, values, right = np.linalg.svd(other.T @ one)
    signs = np.array([1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
    rotation = (left * signs) @ right
    scale = float((values * signs).sum() / (one**2).sum())
    linear = scale * rotation
    return np.column_stack([linear, target_mean - linear @ source_mean])


def apply(matrix: Matrix, points: Points) -> Points:
    """Return the points that `matrix` maps `points` to."""
    mapped: Points = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped


def invert(matrix: Matrix) -> Matrix:
    """Return the matrix that maps back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def scale_of(matrix: Matrix) -> float:
    """Return the factor by which `matrix` changes lengths; of a similarity transform it is the same everywhere."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def sample(pixels: Pixels | Floats, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Floats:
    """Return float32[..., 3]: the colours at points, bilinear; outside of the picture those of its border."""
    height, width = pixels.shape[:2]
    x = np.clip(np.asarray(x, np.float32) - 0.5, 0, width - 1)
    y = np.clip(np.asarray(y, np.float32) - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(np.intp), max(width - 2, 0)), np.minimum(y.astype(np.intp), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[..., None], (y - top)[..., None]
    upper = pixels[top, left] * (1 - u) + pixels[top, right] * u
    lower = pixels[bottom, left] * (1 - u) + pixels[bottom, right] * u
    colours: Floats = upper * (1 - v) + lower * v
    return colours


def warp(pixels: Pixels, matrix: Matrix, size: tuple[int, int]) -> Floats:
    """Return float32[height, width, 3] of `size` (width, height); `matrix` maps its points to those of `pixels`.

    Where the picture shrinks, each pixel is a mean, so that nothing is skipped.
    """
    width, height = size
    corners = apply(matrix, np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))
    region, origin, factor = cut(pixels, corners, scale_of(matrix))
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    mapped = (apply(matrix, np.stack([columns, rows], -1).reshape(-1, 2)) - origin) / factor
    return sample(region, mapped[:, 0], mapped[:, 1]).reshape(height, width, 3)


def cut(pixels: Pixels, points: Points, shrinking: float) -> tuple[Pixels, Points, int]:
    """Return the part of a picture around `points`, reduced by a whole number for sampling that shrinks it.

    Returns the part, the point of its left upper corner, and the divisor of its size. `shrinking` is the number of
    pixels from one sample to the next.
    """
    height, width = pixels.shape[:2]
    factor = max(1, int(shrinking + 0.25))
    margin = 2 * factor
    left, top = np.clip(np.floor(points.min(0) - margin), 0, [width - 1, height - 1]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(points.max(0) + margin), [left + 1, top + 1], [width, height]).astype(int).tolist()
    region = pixels[top:bottom, left:right]
    if factor > 1:
        region = np.asarray(Image.fromarray(np.ascontiguousarray(region)).reduce(factor))
    return region, np.array([left, top], np.float64), factor
