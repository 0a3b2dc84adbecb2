"""Euler's method over noise levels: Karras et al. 2022, algorithms 1 and 2 without churn, and its ancestral variant.

diffusers' `EulerDiscreteScheduler` and `EulerAncestralDiscreteScheduler`. A sample is the image plus sigma
times the noise; the denoiser gets it scaled to a variance of 1.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers.betas import alphas_cumprod, linspace
from backends.diffusion.schedulers.options import Prediction, Spacing, TrainingOptions
from backends.diffusion.schedulers.plan import BasePlan, FamilyConfig, Latent, SolverState
from backends.diffusion.schedulers.predictions import predict_original_at_sigma
from backends.diffusion.schedulers.spacing import (
    DoubleArray,
    SigmaCurve,
    check_steps,
    first_step,
    sigma_curve,
    sigmas_to_timesteps,
    spaced_timesteps,
    training_sigmas,
)


@dataclass(frozen=True, slots=True)
class EulerOptions(TrainingOptions):
    """The options of diffusers' `EulerDiscreteScheduler`."""

    prediction_type: Prediction = "epsilon"
    interpolation_type: Literal["linear", "log_linear"] = "linear"
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: Literal[False] | None = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    timestep_spacing: Spacing = "linspace"
    timestep_type: Literal["discrete", "continuous"] = "discrete"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"


@dataclass(frozen=True, slots=True)
class EulerAncestralOptions(TrainingOptions):
    """The options of diffusers' `EulerAncestralDiscreteScheduler`."""

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Spacing = "linspace"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False


class Euler:
    """Makes plans of the Euler solver (`Scheduler`)."""

    def __init__(self, options: EulerOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options contradict one another."""
        if options.use_karras_sigmas and options.use_exponential_sigmas:
            raise ValueError("The options use_karras_sigmas and use_exponential_sigmas exclude each other.")
        self._options = options
        self._family_config = family_config
        self._training_sigmas = training_sigmas(
            alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)
        )

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "EulerPlan":
        """Return a plan of `steps` steps, or of the share `strength` at their end (`Scheduler.plan`)."""
        options = self._options
        check_steps(steps, options.num_train_timesteps)
        first = first_step(steps, strength, self._family_config.family)
        timesteps, sigmas = self._timesteps_and_sigmas(steps)
        final = float(self._training_sigmas[0]) if options.final_sigmas_type == "sigma_min" else 0.0
        levels = np.append(sigmas, final).astype(np.float32)
        if options.timestep_type == "continuous" and options.prediction_type == "v_prediction":
            timesteps = 0.25 * np.log(levels[:-1])
        return EulerPlan(
            timesteps=timesteps.astype(np.float32)[first:],
            sigmas=levels[first:],
            prediction=options.prediction_type,
            initial_scale=_initial_scale(levels, options.timestep_spacing),
            ancestral=False,
        )

    def _timesteps_and_sigmas(self, steps: int) -> tuple[DoubleArray, DoubleArray]:
        options, ratios = self._options, self._training_sigmas
        timesteps = spaced_timesteps(options.timestep_spacing, options.num_train_timesteps, steps, options.steps_offset)
        if options.interpolation_type == "log_linear":
            # One more than the steps, because the end point is included.
            logs = linspace(float(np.log(ratios[-1])), float(np.log(ratios[0])), steps + 1)
            sigmas: DoubleArray = np.exp(logs).astype(np.float64)
        else:
            sigmas = _interpolated(timesteps, ratios)
        if options.use_karras_sigmas or options.use_exponential_sigmas:
            sigma_max = float(sigmas[0]) if options.sigma_max is None else options.sigma_max
            sigma_min = float(sigmas[-1]) if options.sigma_min is None else options.sigma_min
            curve: SigmaCurve = "karras" if options.use_karras_sigmas else "exponential"
            sigmas = sigma_curve(curve, sigma_max, sigma_min, steps)
            timesteps = sigmas_to_timesteps(sigmas, ratios)
        return timesteps, sigmas


class EulerAncestral:
    """Makes plans of the ancestral Euler solver (`Scheduler`).

    Each step removes more noise than is due, and adds the difference as new noise.
    """

    def __init__(self, options: EulerAncestralOptions, family_config: FamilyConfig) -> None:
        """Accept any combination of options."""
        self._options = options
        self._family_config = family_config
        self._training_sigmas = training_sigmas(
            alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)
        )

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "EulerPlan":
        """Return a plan of `steps` steps, or of the share `strength` at their end (`Scheduler.plan`)."""
        options = self._options
        check_steps(steps, options.num_train_timesteps)
        first = first_step(steps, strength, self._family_config.family)
        timesteps = spaced_timesteps(options.timestep_spacing, options.num_train_timesteps, steps, options.steps_offset)
        levels = np.append(_interpolated(timesteps, self._training_sigmas), 0.0).astype(np.float32)
        return EulerPlan(
            timesteps=timesteps.astype(np.float32)[first:],
            sigmas=levels[first:],
            prediction=options.prediction_type,
            initial_scale=_initial_scale(levels, options.timestep_spacing),
            ancestral=True,
        )


@dataclass(frozen=True, slots=True, eq=False)
class EulerPlan(BasePlan):
    """The steps of the Euler solver for one image (`Plan`).

    `sigmas` are the noise levels before each run and after the last: float32[at least runs + 1].
    """

    timesteps: npt.NDArray[np.float32]
    sigmas: npt.NDArray[np.float32]
    prediction: Prediction
    initial_scale: float
    ancestral: bool

    def scale_input(self, i: int, sample: Latent) -> Latent:
        """Scale the sample to a variance of 1."""
        scaled: Latent = sample / np.sqrt(self.sigmas[i] ** 2 + np.float32(1))
        return scaled

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`); the ancestral variant draws noise at each run but the last."""
        # All in float32, as in diffusers: sigma can be 4096, and other roundings would show in the image.
        sigma, after = self.sigmas[i], self.sigmas[i + 1]
        added = np.sqrt(after**2 * (sigma**2 - after**2) / sigma**2) if self.ancestral else np.float32(0)
        down = np.sqrt(np.maximum(0, after**2 - added**2)) if self.ancestral else after
        original = predict_original_at_sigma(self.prediction, model_output, sample, sigma)
        moved: Latent = sample + (sample - original) / sigma * (down - sigma)
        if added:
            moved += added * noise.normal(sample.shape)
        return moved

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        noised: Latent = latent + noise * self.sigmas[i]
        return noised


def _interpolated(timesteps: DoubleArray, ratios: npt.NDArray[np.float32]) -> DoubleArray:
    return np.interp(timesteps.astype(np.float32), np.arange(len(ratios)), ratios)


def _initial_scale(sigmas: npt.NDArray[np.float32], spacing: Spacing) -> float:
    sigma_max = float(sigmas.max())
    return sigma_max if spacing in ("linspace", "trailing") else math.sqrt(sigma_max**2 + 1)
