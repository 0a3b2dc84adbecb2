"""A predictor and a corrector that need no further runs: Zhao et al. 2023, "UniPC".

diffusers' `UniPCMultistepScheduler`. Each run corrects the sample that the last step came to, before it takes its own.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers.betas import alphas_cumprod
from backends.diffusion.schedulers.ddim import refuse_thresholding
from backends.diffusion.schedulers.multistep import MultistepOptions, NoiseLevels, check_sigma_options
from backends.diffusion.schedulers.plan import FamilyConfig, Latent, SolverState, UnscaledPlan
from backends.diffusion.schedulers.spacing import (
    DoubleArray,
    check_steps,
    first_step,
    shift_sigmas,
    sigma_curve,
    sigmas_to_timesteps,
    spaced_timesteps,
    stretch_to_terminal,
    training_sigmas,
)


@dataclass(frozen=True, slots=True)
class UniPCOptions(MultistepOptions):
    """Those of `UniPCMultistepScheduler`."""

    solver_type: Literal["bh1", "bh2"] = "bh2"
    predict_x0: Literal[True] = True
    disable_corrector: tuple[float, ...] = ()
    solver_p: None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    shift_terminal: float | None = None


class UniPC:
    """A `Scheduler`."""

    def __init__(self, options: UniPCOptions, facts: FamilyConfig) -> None:
        """Raises `ValueError` where the options cannot go together."""
        refuse_thresholding(options.thresholding)
        check_sigma_options(options, None)
        if options.final_sigmas_type == "zero" and (options.solver_type == "bh1" or not options.lower_order_final):
            raise ValueError("With final_sigmas_type zero, solver_type must be bh2 and lower_order_final true.")
        if options.shift_terminal is not None and not options.use_flow_sigmas:
            raise ValueError("The option shift_terminal needs use_flow_sigmas.")
        self._options = options
        self._family_config = facts
        self._training_sigmas = training_sigmas(
            alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)
        )

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "UniPCPlan":
        """See `Scheduler`; `size` makes no difference."""
        options = self._options
        check_steps(steps, options.num_train_timesteps - 1)
        first = first_step(steps, strength, self._family_config.family)
        timesteps, sigmas = self._timesteps_and_sigmas(steps)
        curve = options.use_karras_sigmas or options.use_exponential_sigmas or options.use_flow_sigmas
        least = float(sigmas[-1] if curve else self._training_sigmas[0])
        final = least if options.final_sigmas_type == "sigma_min" else 0.0
        levels = np.append(sigmas, final).astype(np.float32).astype(np.float64)
        return UniPCPlan(
            timesteps=np.trunc(timesteps[first:]).astype(np.float32),
            levels=NoiseLevels.from_ratios(levels[first:], flow=options.use_flow_sigmas),
            options=options,
            first=first,
        )

    def _timesteps_and_sigmas(self, steps: int) -> tuple[DoubleArray, DoubleArray]:
        options, ratios = self._options, self._training_sigmas
        if options.use_flow_sigmas:
            sigmas = self._flow_sigmas(steps)
            return sigmas * options.num_train_timesteps, sigmas
        if options.use_karras_sigmas or options.use_exponential_sigmas:
            most = float(ratios[-1]) if options.sigma_max is None else options.sigma_max
            least = float(ratios[0]) if options.sigma_min is None else options.sigma_min
            sigmas = sigma_curve("karras" if options.use_karras_sigmas else "exponential", most, least, steps)
            timesteps = sigmas_to_timesteps(sigmas, ratios)
            return (timesteps.round() if options.use_karras_sigmas else timesteps + 1e-3), sigmas
        trained, offset = options.num_train_timesteps, options.steps_offset
        if options.timestep_spacing == "trailing":
            timesteps = spaced_timesteps("trailing", trained, steps, offset)
        else:  # one more, of which the last is left out
            timesteps = spaced_timesteps(options.timestep_spacing, trained, steps + 1, offset)[:-1].round()
        return timesteps, np.interp(timesteps, np.arange(len(ratios)), ratios)

    def _flow_sigmas(self, steps: int) -> DoubleArray:
        options = self._options
        even = np.linspace(1, 1 / options.num_train_timesteps, steps + 1)[:-1]
        sigmas = stretch_to_terminal(shift_sigmas(even, options.flow_shift), options.shift_terminal)
        # With nothing of the picture there at all, its logarithm would be infinite.
        if sigmas[0] > 1 - 1e-6:
            sigmas[0] -= 1e-6
        return sigmas


@dataclass(frozen=True, slots=True, eq=False)
class UniPCPlan(UnscaledPlan):
    """A `Plan`. `first` is how many steps were left out before it."""

    timesteps: npt.NDArray[np.float32]
    levels: NoiseLevels
    options: UniPCOptions
    first: int

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """See `Plan`; pictures of the last runs and the last sample are remembered, and no noise is drawn."""
        original = self.levels.predict_original(self.options.prediction_type, model_output, sample, i)
        if state.sample is not None and self.first + i - 1 not in self.options.disable_corrector:
            sample = self._moved(i - 1, state.sample, state.outputs, corrected_by=original)
        state.outputs = [*state.outputs[-self.options.solver_order :], original]
        state.sample = sample
        return self._moved(i, sample, state.outputs)

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """See `Plan`."""
        return self.levels.add_noise(latent, noise, i)

    def _order(self, i: int) -> int:
        left = len(self.timesteps) - i
        return min(self.options.solver_order, i + 1, left if self.options.lower_order_final else 3)

    def _moved(self, i: int, sample: Latent, originals: list[Latent], corrected_by: Latent | None = None) -> Latent:
        """The sample after run `i`, foreseen from `originals`, the last of which is that run's; or found again where
        `corrected_by` is the picture as it was seen from there.
        """
        levels, order = self.levels, self._order(i)
        newest = originals[-1]
        h = float(levels.lambdas[i + 1] - levels.lambdas[i])
        gain = -math.expm1(-h)
        alpha = float(levels.alphas[i + 1])
        moved: Latent = float(levels.sigmas[i + 1] / levels.sigmas[i]) * sample + (alpha * gain) * newest
        if not h or (order == 1 and corrected_by is None):
            return moved
        distances = [float(levels.lambdas[i - k] - levels.lambdas[i]) / h for k in range(1, order)]
        slopes = [(originals[-1 - k] - newest) / distance for k, distance in enumerate(distances, 1)]
        if corrected_by is not None:
            distances, slopes = [*distances, 1.0], [*slopes, corrected_by - newest]
        scale = alpha * (h if self.options.solver_type == "bh1" else gain)
        for weight, slope in zip(self._weights(h, distances), slopes, strict=True):
            moved += (scale * weight) * slope
        return moved

    def _weights(self, h: float, distances: list[float]) -> list[float]:
        """Those of theorem 3.1, one for each distance; a single one is a half, whatever the distance."""
        if len(distances) == 1:
            return [0.5]
        divisor = -h if self.options.solver_type == "bh1" else math.expm1(-h)
        term, factorial, wanted = math.expm1(-h) / -h - 1, 1, []
        for k in range(1, len(distances) + 1):
            wanted.append(term * factorial / divisor)
            factorial *= k + 1
            term = term / -h - 1 / factorial
        powers = np.asarray([[distance**k for distance in distances] for k in range(len(distances))])
        weights: list[float] = np.linalg.solve(powers, np.asarray(wanted)).tolist()
        return weights
