"""The noise schedule of the training: the share of signal at each timestep."""

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from backends.diffusion.schedulers.options import TrainingOptions

Floats = npt.NDArray[np.float32]


def alphas_cumprod(training: TrainingOptions, *, zero_terminal_snr: bool = False) -> Floats:
    """Return the share of the image in a sample's variance at each timestep: float32[num_train_timesteps], falling.

    With `zero_terminal_snr` the last share is 0: Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps
    are Flawed", algorithm 1. Intermediate results are rounded to float32 as in torch, so that values computed from
    their differences agree with diffusers.
    """
    betas = _betas(training)
    if zero_terminal_snr:
        betas = _rescaled(betas)
    return _cumprod(np.float32(1) - betas)


def _betas(training: TrainingOptions) -> Floats:
    count = training.num_train_timesteps
    if training.trained_betas is not None:
        if len(training.trained_betas) != count:
            raise ValueError(f"The option trained_betas has {len(training.trained_betas)} numbers, not {count}.")
        return np.asarray(training.trained_betas, np.float32)
    match training.beta_schedule:
        case "linear":
            return linspace(training.beta_start, training.beta_end, count)
        case "scaled_linear":
            return linspace(training.beta_start**0.5, training.beta_end**0.5, count) ** 2
        case "squaredcos_cap_v2":
            left = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
            return np.asarray([min(1 - after / before, 0.999) for before, after in pairwise(left)], np.float32)


def linspace(start: float, end: float, count: int) -> Floats:
    """Compute `torch.linspace` in float32, which counts from both ends to the middle."""
    if count == 1:
        return np.asarray([start], np.float32)
    first, last = np.float32(start), np.float32(end)
    step = (last - first) / np.float32(count - 1)
    indices = np.arange(count)
    # In float64 the product of two float32 is exact, so the sum is rounded once, as by a fused multiply-add.
    from_start = float(first) + float(step) * indices
    from_end = float(last) - float(step) * (count - 1 - indices)
    return np.where(indices < count // 2, from_start, from_end).astype(np.float32)


def _cumprod(alphas: Floats) -> Floats:
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _rescaled(betas: Floats) -> Floats:
    root = np.sqrt(_cumprod(np.float32(1) - betas))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    left = root**2
    alphas = np.concatenate([left[:1], left[1:] / left[:-1]])
    rescaled: Floats = np.float32(1) - alphas
    return rescaled
