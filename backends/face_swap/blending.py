"""Seamless blending: the membrane of Poisson image editing (Pérez et al., 2003), solved on a pyramid of masks.

A patch keeps its gradients and takes the colours of the picture around it. That is the patch plus a membrane: a
harmonic function that is, along the border, the difference of picture and patch.
"""

import numpy as np

from backends.face_swap.geometry import Floats, Mask

_COARSEST = 12
"""Side in pixels of the masks that are solved without a coarser one before."""
_TOLERANCE = 0.05
"""Largest remaining error of an equation, in levels of 255."""
_MAX_STEPS = 300


def solve_membrane(border: Floats, inside: Mask) -> Floats:
    """Return float32[height, width, channels]: `border` outside, and inside what is harmonic between its values.

    Each pixel inside is the mean of its four neighbours. No pixel at the edge of the array may be inside.
    """
    start = border.astype(np.float32)
    height, width = inside.shape
    if min(height, width) > 2 * _COARSEST:
        coarse_border, coarse_inside = _halve(start, inside)
        coarse = solve_membrane(coarse_border, coarse_inside)
        finer = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
        start = np.where(inside[..., None], finer, start)
    return _relax(start, inside)


def _halve(border: Floats, inside: Mask) -> tuple[Floats, Mask]:
    """Return a border and a mask of half the size. A pixel is inside if all four that it stands for are."""
    height, width = inside.shape
    padding = (0, height % 2), (0, width % 2)
    inside = np.pad(inside, padding)
    border = np.pad(border, (*padding, (0, 0)), mode="edge")
    blocks = inside.reshape(inside.shape[0] // 2, 2, inside.shape[1] // 2, 2)
    outside = ~blocks[..., None]
    values = border.reshape(*blocks.shape, -1)
    count = outside.sum((1, 3))
    return (values * outside).sum((1, 3)) / np.maximum(count, 1), count[..., 0] == 0


def _relax(values: Floats, inside: Mask) -> Floats:
    """Solve the equations by conjugate gradients, starting from `values`."""
    weight = inside[..., None].astype(np.float32)
    residual = _laplacian(values) * weight
    direction, found = residual.copy(), values.copy()
    energy = (residual**2).sum((0, 1))
    for _ in range(_MAX_STEPS):
        if float(np.abs(residual).max(initial=0)) < _TOLERANCE:
            break
        image = -_laplacian(direction) * weight
        step = energy / np.maximum((direction * image).sum((0, 1)), 1e-12)
        found += step * direction
        residual -= step * image
        previous, energy = energy, (residual**2).sum((0, 1))
        direction = residual + energy / np.maximum(previous, 1e-12) * direction
    return found


def _laplacian(values: Floats) -> Floats:
    """Return the sum of the four neighbours minus four times the pixel; at the edge of the array, 0."""
    result = np.zeros_like(values)
    result[1:-1, 1:-1] = (
        values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * values[1:-1, 1:-1]
    )
    return result


def erode(mask: Mask, radius: int) -> Mask:
    """Return the pixels whose neighbours up to `radius` pixels away, in a square, are all in the mask."""
    counts = _box_sums(mask.astype(np.float32), radius)
    eroded: Mask = counts > (2 * radius + 1) ** 2 - 0.5
    return eroded


def feather(mask: Mask, radius: int) -> Floats:
    """Return float32[height, width] that rises from 0 at the border of the mask to 1 `radius` pixels inside of it."""
    weights, half = erode(mask, radius)[..., None].astype(np.float32), max(1, radius // 2)
    for _ in range(2):
        weights = blur(weights, half)
    faded: Floats = weights[..., 0] * mask
    return faded


def blur(values: Floats, radius: int) -> Floats:
    """Return the means of squares of 2 `radius` + 1 pixels; float32[height, width, channels]."""
    sums = np.stack([_box_sums(each, radius) for each in np.moveaxis(values, -1, 0)], -1)
    return sums / np.float32((2 * radius + 1) ** 2)


def _box_sums(values: Floats, radius: int) -> Floats:
    """Return the sum over a square around each pixel; beyond the edge the values are 0."""
    if radius < 1:
        return values
    side = 2 * radius + 1
    sums = np.pad(values.astype(np.float64), ((radius + 1, radius), (radius + 1, radius))).cumsum(0).cumsum(1)
    totals: Floats = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]).astype(
        np.float32
    )
    return totals
