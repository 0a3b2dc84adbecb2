"""Multistep DPM-Solver++: Lu et al. 2022, "DPM-Solver++"; diffusers' `DPMSolverMultistepScheduler`.

Other programs call it "DPM++ 2M Karras" with `use_karras_sigmas`, and "DPM++ 2M SDE" with `sde-dpmsolver++`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

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
    training_sigmas,
)


@dataclass(frozen=True, slots=True)
class DPMSolverOptions(MultistepOptions):
    """The options of diffusers' `DPMSolverMultistepScheduler`."""

    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    euler_at_final: bool = False
    use_lu_lambdas: bool | None = False
    lambda_min_clipped: float = -math.inf


class DPMSolver:
    """Makes plans of the DPMSolver solver (`Scheduler`)."""

    def __init__(self, options: DPMSolverOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options contradict one another."""
        refuse_thresholding(options.thresholding)
        check_sigma_options(options, "use_lu_lambdas" if options.use_lu_lambdas else None)
        if options.algorithm_type == "sde-dpmsolver++" and options.solver_order > 2:
            raise ValueError("With sde-dpmsolver++ the option solver_order may be 1 or 2.")
        self._options = options
        self._family_config = family_config
        alphas = alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)
        self._training_sigmas = training_sigmas(alphas)
        # The plan omits timesteps with a lower log signal-to-noise ratio, as the cosine schedule requires.
        clipped = int((-np.log(self._training_sigmas) < options.lambda_min_clipped).sum())
        self._last = options.num_train_timesteps - clipped

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "DPMSolverPlan":
        """Return a plan of `steps` steps, or of the share `strength` at their end (`Scheduler.plan`)."""
        options = self._options
        check_steps(steps, self._last - 1)
        first = first_step(steps, strength, self._family_config.family)
        timesteps, sigmas = self._timesteps_and_sigmas(steps)
        final = float(self._training_sigmas[0]) if options.final_sigmas_type == "sigma_min" else 0.0
        levels = np.append(sigmas, final).astype(np.float32).astype(np.float64)
        return DPMSolverPlan(
            timesteps=np.trunc(timesteps[first:] + 1e-3).astype(np.float32),
            levels=NoiseLevels.from_ratios(levels[first:], flow=options.use_flow_sigmas),
            options=options,
            has_few_steps=len(timesteps) < 15,
        )

    def _timesteps_and_sigmas(self, steps: int) -> tuple[DoubleArray, DoubleArray]:
        options, ratios = self._options, self._training_sigmas
        if options.use_flow_sigmas:
            rising = 1 - np.linspace(1, 1 / options.num_train_timesteps, steps + 1)[1:]
            sigmas = shift_sigmas(rising, options.flow_shift)[::-1]
            return sigmas * options.num_train_timesteps, sigmas
        if options.use_karras_sigmas or options.use_exponential_sigmas or options.use_lu_lambdas:
            curve: Literal["karras", "exponential"] = "karras" if options.use_karras_sigmas else "exponential"
            sigmas = sigma_curve(curve, float(ratios[-1]), float(ratios[0]), steps)
            timesteps = sigmas_to_timesteps(sigmas, ratios)
            whole = options.beta_schedule != "squaredcos_cap_v2" and not options.use_exponential_sigmas
            return (timesteps.round() if whole else timesteps), sigmas
        timesteps = self._spaced(steps)
        return timesteps, np.interp(timesteps, np.arange(len(ratios)), ratios)

    def _spaced(self, steps: int) -> DoubleArray:
        options = self._options
        if options.timestep_spacing == "trailing":
            stride = options.num_train_timesteps / steps
            return (np.arange(self._last, 0, -stride).round() - 1)[:steps]
        # One timestep more; the last is dropped.
        return spaced_timesteps(options.timestep_spacing, self._last, steps + 1, options.steps_offset)[:-1].round()


@dataclass(frozen=True, slots=True, eq=False)
class DPMSolverPlan(UnscaledPlan):
    """The steps of the DPMSolver solver for one image (`Plan`).

    `has_few_steps`: there are so few steps in all that the last ones have a lower order.
    """

    timesteps: "np.ndarray[tuple[int], np.dtype[np.float32]]"
    levels: NoiseLevels
    options: DPMSolverOptions
    has_few_steps: bool

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`).

        `state` holds the predicted images of the last runs; the stochastic algorithm draws noise.
        """
        original = self.levels.predict_original(self.options.prediction_type, model_output, sample, i)
        keep = self.options.solver_order - 1
        state.outputs = [*(state.outputs[-keep:] if keep else []), original]
        stochastic = self.options.algorithm_type == "sde-dpmsolver++"
        moved = self._moved(i, sample, state.outputs[-self._order(i) :], 2 if stochastic else 1)
        if stochastic and (sigma := float(self.levels.sigmas[i + 1])):
            h = float(self.levels.lambdas[i + 1] - self.levels.lambdas[i])
            moved += np.float32(sigma * math.sqrt(-math.expm1(-2 * h))) * noise.normal(sample.shape)
        return moved

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        return self.levels.add_noise(latent, noise, i)

    def _order(self, i: int) -> int:
        options, left = self.options, len(self.timesteps) - i
        if left == 1 and (options.euler_at_final or self._lower_at_end() or options.final_sigmas_type == "zero"):
            return 1
        return min(options.solver_order, i + 1, 2 if left == 2 and self._lower_at_end() else 3)

    def _lower_at_end(self) -> bool:
        return self.options.lower_order_final and self.has_few_steps

    def _moved(self, i: int, sample: Latent, originals: list[Latent], m: int) -> Latent:
        """Apply the formulae of Lu et al.: m = 1 for the deterministic equation, m = 2 for the stochastic one."""
        sigmas, lambdas = self.levels.sigmas, self.levels.lambdas
        h = float(lambdas[i + 1] - lambdas[i])
        alpha, newest = float(self.levels.alphas[i + 1]), originals[-1]
        decay = float(sigmas[i + 1] / sigmas[i]) * (math.exp(-h) if m == 2 else 1.0)
        gain = -math.expm1(-m * h)
        moved: Latent = decay * sample + (alpha * gain) * newest
        # At the end of some plans the noise level stays the same, so that there is nothing to correct.
        if len(originals) == 1 or not h:
            return moved
        h_0 = float(lambdas[i] - lambdas[i - 1])
        slope = (h / h_0) * (newest - originals[-2])
        bend = 1 - gain / (m * h)
        if len(originals) == 2:
            moved += (alpha * (0.5 * gain if self.options.solver_type == "midpoint" else bend)) * slope
            return moved
        h_1 = float(lambdas[i - 1] - lambdas[i - 2])
        earlier = (h / h_1) * (originals[-2] - originals[-3])
        curvature = (h / (h_0 + h_1)) * (slope - earlier)
        moved += (alpha * bend) * (slope + (h_0 / h) * curvature)
        moved += (alpha * ((gain - h) / h**2 + 0.5)) * curvature
        return moved
