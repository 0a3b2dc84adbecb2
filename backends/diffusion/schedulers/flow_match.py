"""Euler's method on straight paths from noise to image (flow matching): Esser et al. 2024.

diffusers' `FlowMatchEulerDiscreteScheduler`. A sample is sigma times the noise plus 1 - sigma times the image; the
denoiser predicts the noise minus the image.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers.plan import FamilyConfig, Latent, SolverState, UnscaledPlan
from backends.diffusion.schedulers.spacing import (
    DoubleArray,
    check_steps,
    first_step,
    shift_sigmas,
    sigma_curve,
    stretch_to_terminal,
)


@dataclass(frozen=True, slots=True)
class FlowMatchOptions:
    """The options of diffusers' `FlowMatchEulerDiscreteScheduler`."""

    num_train_timesteps: int = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float | None = 0.5
    max_shift: float | None = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    invert_sigmas: Literal[False] = False
    shift_terminal: float | None = None
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: Literal[False] | None = False
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    stochastic_sampling: bool = False


class FlowMatch:
    """Makes plans of the FlowMatch solver (`Scheduler`)."""

    def __init__(self, options: FlowMatchOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options contradict one another."""
        if options.use_karras_sigmas and options.use_exponential_sigmas:
            raise ValueError("The options use_karras_sigmas and use_exponential_sigmas exclude each other.")
        if options.use_dynamic_shifting and (options.base_shift is None or options.max_shift is None):
            raise ValueError("The option use_dynamic_shifting needs base_shift and max_shift.")
        self._options = options
        self._family_config = family_config

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "FlowMatchPlan":
        """Return a plan of `steps` steps (`Scheduler.plan`).

        Raises `ValueError` without `size` if the shift depends on it.
        """
        options = self._options
        check_steps(steps, options.num_train_timesteps)
        first = first_step(steps, strength, self._family_config.family)
        if options.use_dynamic_shifting:
            sigmas = self._shifted_by_size(self._even(steps), size)
        else:
            sigmas = shift_sigmas(self._even(steps), options.shift)
        sigmas = stretch_to_terminal(sigmas, options.shift_terminal)
        if options.use_karras_sigmas or options.use_exponential_sigmas:
            curve: Literal["karras", "exponential"] = "karras" if options.use_karras_sigmas else "exponential"
            sigmas = sigma_curve(curve, float(sigmas[0]), float(sigmas[-1]), steps)
        levels = sigmas.astype(np.float32)
        return FlowMatchPlan(
            timesteps=levels[first:] * np.float32(options.num_train_timesteps),
            sigmas=np.append(levels, np.float32(0))[first:],
            stochastic=options.stochastic_sampling,
        )

    def _even(self, steps: int) -> DoubleArray:
        """Return evenly spaced sigmas, before the shift that follows.

        diffusers' Flux pipelines give them from 1 to 1 / steps. Otherwise they lie between those of the training, which
        are themselves shifted once.
        """
        options = self._options
        if self._family_config.family == "flux":
            flux_sigmas: DoubleArray = np.linspace(1.0, 1 / steps, steps).astype(np.float32).astype(np.float64)
            return flux_sigmas
        ends = np.asarray([1.0, 1 / options.num_train_timesteps])
        if not options.use_dynamic_shifting:
            ends = shift_sigmas(ends, options.shift)
        start, end = ends.astype(np.float32).astype(np.float64)
        even: DoubleArray = np.linspace(start, end, steps)
        return even

    def _shifted_by_size(self, sigmas: DoubleArray, size: tuple[int, int] | None) -> DoubleArray:
        options, patch = self._options, self._family_config.pixels_per_token
        if size is None:
            raise ValueError("This scheduler needs the size of the image.")
        base_shift, max_shift = options.base_shift or 0.0, options.max_shift or 0.0
        slope = (max_shift - base_shift) / (options.max_image_seq_len - options.base_image_seq_len)
        tokens = (size[0] // patch) * (size[1] // patch)
        mu = base_shift + slope * (tokens - options.base_image_seq_len)
        factor = math.exp(mu) if options.time_shift_type == "exponential" else mu
        moved: DoubleArray = factor / (factor + (1 / sigmas - 1))
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class FlowMatchPlan(UnscaledPlan):
    """The steps of the FlowMatch solver for one image (`Plan`).

    `sigmas` are the shares of noise before each run and after the last: float32[runs + 1].
    """

    timesteps: npt.NDArray[np.float32]
    sigmas: npt.NDArray[np.float32]
    stochastic: bool

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`); `stochastic_sampling` draws noise at each run but the last."""
        sigma, after = float(self.sigmas[i]), float(self.sigmas[i + 1])
        if not self.stochastic:
            return sample + (after - sigma) * model_output
        original = sample - sigma * model_output
        return (1 - after) * original + after * noise.normal(sample.shape) if after else original

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        sigma = float(self.sigmas[i])
        return sigma * noise + (1 - sigma) * latent
