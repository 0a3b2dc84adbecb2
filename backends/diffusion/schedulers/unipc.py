"""UniPC, a predictor and corrector without additional runs: Zhao et al. 2023.

diffusers' `UniPCMultistepScheduler`. Each run first corrects the sample of the step before, then takes its own step.
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
    SigmaCurve,
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
    """The options of diffusers' `UniPCMultistepScheduler`."""

    solver_type: Literal["bh1", "bh2"] = "bh2"
    predict_x0: Literal[True] = True
    disable_corrector: tuple[float, ...] = ()
    solver_p: None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    shift_terminal: float | None = None


class UniPC:
    """Makes plans of the UniPC solver (`Scheduler`)."""

    def __init__(self, options: UniPCOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options contradict one another."""
        refuse_thresholding(options.thresholding)
        check_sigma_options(options, None)
        if options.final_sigmas_type == "zero" and (options.solver_type == "bh1" or not options.lower_order_final):
            raise ValueError("With final_sigmas_type zero, solver_type must be bh2 and lower_order_final true.")
        if options.shift_terminal is not None and not options.use_flow_sigmas:
            raise ValueError("The option shift_terminal needs use_flow_sigmas.")
        self._options = options
        self._family_config = family_config
        self._training_sigmas = training_sigmas(
            alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)
        )

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "UniPCPlan":
        """Return a plan of `steps` steps, or of the share `strength` at their end (`Scheduler.plan`)."""
        options = self._options
        check_steps(steps, options.num_train_timesteps - 1)
        first = first_step(steps, strength, self._family_config.family)
        timesteps, sigmas = self._timesteps_and_sigmas(steps)
        curve = options.use_karras_sigmas or options.use_exponential_sigmas or options.use_flow_sigmas
        sigma_min = float(sigmas[-1] if curve else self._training_sigmas[0])
        final = sigma_min if options.final_sigmas_type == "sigma_min" else 0.0
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
            sigma_max = float(ratios[-1]) if options.sigma_max is None else options.sigma_max
            sigma_min = float(ratios[0]) if options.sigma_min is None else options.sigma_min
            curve: SigmaCurve = "karras" if options.use_karras_sigmas else "exponential"
            sigmas = sigma_curve(curve, sigma_max, sigma_min, steps)
            timesteps = sigmas_to_timesteps(sigmas, ratios)
            return (timesteps.round() if options.use_karras_sigmas else timesteps + 1e-3), sigmas
        trained, offset = options.num_train_timesteps, options.steps_offset
        if options.timestep_spacing == "trailing":
            timesteps = spaced_timesteps("trailing", trained, steps, offset)
        else:  # one timestep more; the last is dropped
            timesteps = spaced_timesteps(options.timestep_spacing, trained, steps + 1, offset)[:-1].round()
        return timesteps, np.interp(timesteps, np.arange(len(ratios)), ratios)

    def _flow_sigmas(self, steps: int) -> DoubleArray:
        options = self._options
        even = np.linspace(1, 1 / options.num_train_timesteps, steps + 1)[:-1]
        sigmas = stretch_to_terminal(shift_sigmas(even, options.flow_shift), options.shift_terminal)
        # A share of 1 leaves nothing of the image, and the logarithm of its share would be infinite.
        if sigmas[0] > 1 - 1e-6:
            sigmas[0] -= 1e-6
        return sigmas


@dataclass(frozen=True, slots=True, eq=False)
class UniPCPlan(UnscaledPlan):
    """The steps of the UniPC solver for one image (`Plan`).

    `first` is the number of steps that it omits at the start.
    """

    timesteps: npt.NDArray[np.float32]
    levels: NoiseLevels
    options: UniPCOptions
    first: int

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`).

        `state` holds the predicted images of the last runs and the last sample; `noise` is not used.
        """
        original = self.levels.predict_original(self.options.prediction_type, model_output, sample, i)
        if state.sample is not None and self.first + i - 1 not in self.options.disable_corrector:
            sample = self._moved(i - 1, state.sample, state.outputs, corrected_by=original)
        state.outputs = [*state.outputs[-self.options.solver_order :], original]
        state.sample = sample
        return self._moved(i, sample, state.outputs)

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        return self.levels.add_noise(latent, noise, i)

    def _order(self, i: int) -> int:
        left = len(self.timesteps) - i
        return min(self.options.solver_order, i + 1, left if self.options.lower_order_final else 3)

    def _moved(self, i: int, sample: Latent, originals: list[Latent], corrected_by: Latent | None = None) -> Latent:
        """Return the sample after run `i`.

        `originals` are the predicted images of the last runs, the last of them that of run `i`. Without `corrected_by`
        this is the predictor; with it, the image predicted one run later, it is the corrector.
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
        """Return the weights of theorem 3.1, one for each distance; a single weight is 0.5 for any distance."""
        if len(distances) == 1:
            return [0.5]
        divisor = -h if self.options.solver_type == "bh1" else math.expm1(-h)
        term, factorial, constants = math.expm1(-h) / -h - 1, 1, []
        for k in range(1, len(distances) + 1):
            constants.append(term * factorial / divisor)
            factorial *= k + 1
            term = term / -h - 1 / factorial
        powers = np.asarray([[distance**k for distance in distances] for k in range(len(distances))])
        weights: list[float] = np.linalg.solve(powers, np.asarray(constants)).tolist()
        return weights
