"""The timesteps and noise levels of a plan."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.schedulers.options import Spacing
from backends.serving.errors import InvalidValue

DoubleArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_ROUNDED_UP = ("stable-diffusion-3", "flux")
"""Families whose image-to-image pipelines in diffusers round the number of steps up; the others round it down."""


def check_steps(steps: int, max_steps: int) -> None:
    """Raise `InvalidValue` for a number of steps that is out of range."""
    if not 1 <= steps <= max_steps:
        raise InvalidValue(f"This must be from 1 to {max_steps} for this model, not {steps}.", "steps")


def first_step(steps: int, strength: float, family: str) -> int:
    """Return the index of the first step that an edit takes, as `get_timesteps` of diffusers' pipelines does.

    Raises `InvalidValue` if `strength` is not above 0 and at most 1, or leaves no step.
    """
    if not 0 < strength <= 1:
        raise InvalidValue(f"This must be above 0 and at most 1, not {strength:g}.", "strength")
    # A float32 tensor holds 0.7 as 0.69999999; of ten steps it must leave seven.
    strength = float(np.format_float_positional(np.float32(strength)))
    used = steps * strength if family in _ROUNDED_UP else int(steps * strength)
    first = int(steps - used)
    if first >= steps:
        raise InvalidValue(f"A strength of {strength:g} leaves none of the {steps} steps; increase either.", "strength")
    return first


def spaced_timesteps(spacing: Spacing, trained: int, steps: int, offset: int) -> DoubleArray:
    """Return falling timesteps, float64[steps]; those of `linspace` are not integers.

    Sources: table 2 of Lin et al. 2023, and `set_timesteps` of diffusers' schedulers.
    """
    match spacing:
        case "linspace":
            return np.linspace(0, trained - 1, steps)[::-1]
        case "leading":
            return (np.arange(steps) * float(trained // steps))[::-1] + offset
        case "trailing":
            # By rounding the range can have one timestep more, of -1.
            return np.asarray(np.arange(trained, 0, -trained / steps).round() - 1)[:steps]


def check_timesteps(timesteps: npt.NDArray[np.float64 | np.int64], trained: int) -> None:
    """Raise `InvalidValue` if an offset moves a timestep beyond those of the training."""
    if timesteps.max() > trained - 1:
        raise InvalidValue(f"This model's scheduler has no {len(timesteps)} timesteps; request fewer steps.", "steps")


def training_sigmas(alphas_cumprod: Floats) -> Floats:
    """Return the ratios of noise to image at the timesteps of the training, float32[trained], rising.

    If nothing of the image is left at the end, a trace is assumed, so that the ratio is 4096 and not infinite.
    """
    alphas = np.where(alphas_cumprod == 0, np.float32(2**-24), alphas_cumprod)
    ratios: Floats = np.sqrt((np.float32(1) - alphas) / alphas)
    return ratios


SigmaCurve = Literal["karras", "exponential"]


def sigma_curve(curve: SigmaCurve, sigma_max: float, sigma_min: float, steps: int) -> DoubleArray:
    """Return falling noise levels, float64[steps].

    `karras` is equation 5 of Karras et al. 2022 with rho 7; `exponential` is linear in the logarithm.
    """
    ramp = np.linspace(0, 1, steps)
    sigmas: DoubleArray = (sigma_max ** (1 / 7) + ramp * (sigma_min ** (1 / 7) - sigma_max ** (1 / 7))) ** 7
    if curve == "exponential":
        sigmas = np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), steps))
    return sigmas


def sigmas_to_timesteps(sigmas: DoubleArray, ratios: Floats) -> DoubleArray:
    """Return the timesteps, float64[len(sigmas)], that have the noise levels `sigmas`; `ratios` are the training's.

    Some schedulers truncate timesteps to integers, so this function rounds intermediate results as diffusers does.
    """
    log_ratios = np.log(ratios)
    log_sigmas = np.log(np.maximum(sigmas, 1e-10))
    low = (np.searchsorted(log_ratios, log_sigmas, side="right") - 1).clip(0, len(log_ratios) - 2)
    weight = ((log_ratios[low] - log_sigmas) / (log_ratios[low] - log_ratios[low + 1])).clip(0, 1)
    timesteps: DoubleArray = (1 - weight) * low + weight * (low + 1)
    return timesteps


def shift_sigmas(sigmas: DoubleArray, shift: float) -> DoubleArray:
    """Shift shares of noise upwards if `shift` is above 1: Esser et al. 2024, equation 23."""
    shifted: DoubleArray = shift * sigmas / (1 + (shift - 1) * sigmas)
    return shifted


def stretch_to_terminal(sigmas: DoubleArray, terminal: float | None) -> DoubleArray:
    """Stretch shares of noise so that the last is `terminal`; a single step, or no `terminal`, changes nothing."""
    if not terminal or len(sigmas) == 1:
        return sigmas
    image_shares = 1 - sigmas
    # The order of operations is that of diffusers: some schedulers truncate timesteps to integers.
    stretched: DoubleArray = 1 - image_shares / (image_shares[-1] / (1 - terminal))
    return stretched
