"""Which timesteps and which amounts of noise a picture passes through."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.schedulers.options import Spacing
from backends.serving.errors import InvalidValue

DoubleArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# Families whose image-to-image pipelines in diffusers round the number of steps up, and those that round it down.
_ROUNDED_UP = ("stable-diffusion-3", "flux")


def check_steps(steps: int, most: int) -> None:
    """Raises `InvalidValue` where a number of steps is out of range."""
    if not 1 <= steps <= most:
        raise InvalidValue(f"This must be from 1 to {most} for this model, not {steps}.", "steps")


def first_step(steps: int, strength: float, family: str) -> int:
    """The first of the steps that an image goes through, as `get_timesteps` of diffusers' pipelines has it.

    Raises `InvalidValue` where `strength` is not above 0 and at most 1, or leaves no step.
    """
    if not 0 < strength <= 1:
        raise InvalidValue(f"This must be above 0 and at most 1, not {strength:g}.", "strength")
    # A tensor carries 0.7 as 0.69999999; ten steps of it must be seven.
    strength = float(np.format_float_positional(np.float32(strength)))
    used = steps * strength if family in _ROUNDED_UP else int(steps * strength)
    first = int(steps - used)
    if first >= steps:
        raise InvalidValue(f"With {steps} steps, {strength:g} leaves none; ask for more of either.", "strength")
    return first


def spaced_timesteps(spacing: Spacing, trained: int, steps: int, offset: int) -> DoubleArray:
    """Falling timesteps, float64[steps]; those of `linspace` are fractions.

    Sources: table 2 of Lin et al. 2023, and `set_timesteps` of diffusers' schedulers.
    """
    match spacing:
        case "linspace":
            return np.linspace(0, trained - 1, steps)[::-1]
        case "leading":
            return (np.arange(steps) * float(trained // steps))[::-1] + offset
        case "trailing":
            # Rounding can make the range one longer than asked for, by a timestep of -1.
            return np.asarray(np.arange(trained, 0, -trained / steps).round() - 1)[:steps]


def check_timesteps(timesteps: npt.NDArray[np.float64 | np.int64], trained: int) -> None:
    """Raises `InvalidValue` where an offset brings a timestep out of those that were trained."""
    if timesteps.max() > trained - 1:
        raise InvalidValue(f"This model has no plan of {len(timesteps)} steps; ask for fewer.", "steps")


def training_sigmas(alphas_cumprod: Floats) -> Floats:
    """How much noise there is for each picture at the timesteps of the training, float32[trained], rising.

    Where nothing of the picture is left at the end, a trace is assumed, so that the ratio is 4096 and not infinite.
    """
    alphas = np.where(alphas_cumprod == 0, np.float32(2**-24), alphas_cumprod)
    ratios: Floats = np.sqrt((np.float32(1) - alphas) / alphas)
    return ratios


SigmaCurve = Literal["karras", "exponential"]


def sigma_curve(curve: SigmaCurve, most: float, least: float, steps: int) -> DoubleArray:
    """Falling amounts of noise, float64[steps]. Karras et al. 2022, equation 5, with rho 7; or even in logarithms."""
    ramp = np.linspace(0, 1, steps)
    sigmas: DoubleArray = (most ** (1 / 7) + ramp * (least ** (1 / 7) - most ** (1 / 7))) ** 7
    if curve == "exponential":
        sigmas = np.exp(np.linspace(math.log(most), math.log(least), steps))
    return sigmas


def sigmas_to_timesteps(sigmas: DoubleArray, ratios: Floats) -> DoubleArray:
    """At which timesteps there is so much noise, float64, as many as `sigmas`; `ratios` are those of the training.

    Some schedulers cut off what is behind the point, so this rounds where diffusers does.
    """
    known = np.log(ratios)
    wanted = np.log(np.maximum(sigmas, 1e-10))
    low = (np.searchsorted(known, wanted, side="right") - 1).clip(0, len(known) - 2)
    share = ((known[low] - wanted) / (known[low] - known[low + 1])).clip(0, 1)
    timesteps: DoubleArray = (1 - share) * low + share * (low + 1)
    return timesteps


def shift_sigmas(sigmas: DoubleArray, shift: float) -> DoubleArray:
    """Shares of noise, moved towards more of it where `shift` is above 1: Esser et al. 2024, equation 23."""
    moved: DoubleArray = shift * sigmas / (1 + (shift - 1) * sigmas)
    return moved


def stretch_to_terminal(sigmas: DoubleArray, terminal: float | None) -> DoubleArray:
    """Shares of noise, stretched so that the last is `terminal`, where there is one and more than one step."""
    if not terminal or len(sigmas) == 1:
        return sigmas
    left = 1 - sigmas
    # In this order, since some schedulers cut off what is behind the point of a timestep.
    stretched: DoubleArray = 1 - left / (left[-1] / (1 - terminal))
    return stretched
