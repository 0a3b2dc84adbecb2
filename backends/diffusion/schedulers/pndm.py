"""PLMS, the original scheduler of Stable Diffusion 1: diffusers' `PNDMScheduler` without its Runge-Kutta steps.

Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds", formulae 9 and 12. The second step is
taken twice, so there is one run more than steps.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers.betas import alphas_cumprod
from backends.diffusion.schedulers.options import Spacing, TrainingOptions
from backends.diffusion.schedulers.plan import FamilyConfig, Latent, SolverState, UnscaledPlan
from backends.diffusion.schedulers.predictions import mix_noise
from backends.diffusion.schedulers.spacing import check_steps, check_timesteps, first_step, spaced_timesteps


@dataclass(frozen=True, slots=True)
class PNDMOptions(TrainingOptions):
    """The options of diffusers' `PNDMScheduler`."""

    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Spacing = "leading"
    steps_offset: int = 0


class PNDM:
    """Makes plans of the PNDM solver (`Scheduler`)."""

    def __init__(self, options: PNDMOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options require the Runge-Kutta steps."""
        if not options.skip_prk_steps:
            raise ValueError("PNDMScheduler is supported only if the option skip_prk_steps is true.")
        self._options = options
        self._family_config = family_config
        self._alphas = alphas_cumprod(options)

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "PNDMPlan":
        """Return a plan of `steps` steps, or of the share `strength` at their end (`Scheduler.plan`)."""
        options, trained = self._options, self._options.num_train_timesteps
        check_steps(steps, trained)
        once = spaced_timesteps(options.timestep_spacing, trained, steps, options.steps_offset).round().astype(np.int64)
        check_timesteps(once, trained)
        timesteps = np.concatenate([once[:1], once[1:2], once[1:]])[
            first_step(steps, strength, self._family_config.family) :
        ]
        stride = trained // steps
        come_from, go_to = timesteps.copy(), timesteps - stride
        # The second run evaluates the denoiser at the end of the first step, and repeats that step.
        go_to[1:2] = timesteps[1:2]
        come_from[1:2] = np.minimum(timesteps[1:2] + stride, trained - 1)
        final = np.float32(1) if options.set_alpha_to_one else self._alphas[0]
        return PNDMPlan(
            timesteps=timesteps.astype(np.float32),
            noise_alphas=self._alphas[timesteps],
            alphas=self._alphas[come_from],
            next_alphas=np.where(go_to >= 0, self._alphas[go_to], final),
            prediction=options.prediction_type,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PNDMPlan(UnscaledPlan):
    """The steps of the PNDM solver for one image (`Plan`).

    The arrays hold the share of the image at each timestep, and before and after each step.
    """

    timesteps: npt.NDArray[np.float32]
    noise_alphas: npt.NDArray[np.float32]
    alphas: npt.NDArray[np.float32]
    next_alphas: npt.NDArray[np.float32]
    prediction: Literal["epsilon", "v_prediction"]

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`). `state` holds the last four outputs; `noise` is not used."""
        if i == 1:
            if state.sample is None:
                raise RuntimeError("The first run was left out.")
            output, sample, state.sample = (model_output + state.outputs[-1]) / 2, state.sample, None
        else:
            state.outputs = [*state.outputs[-3:], model_output]
            output = _extrapolated(state.outputs)
            if i == 0:
                state.sample = sample
        return self._moved(sample, output, float(self.alphas[i]), float(self.next_alphas[i]))

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        return mix_noise(latent, noise, float(self.noise_alphas[i]))

    def _moved(self, sample: Latent, output: Latent, alpha: float, next_alpha: float) -> Latent:
        """Apply formula 9."""
        if self.prediction == "v_prediction":
            output = math.sqrt(alpha) * output + math.sqrt(1 - alpha) * sample
        divisor = alpha * math.sqrt(1 - next_alpha) + math.sqrt(alpha * (1 - alpha) * next_alpha)
        return math.sqrt(next_alpha / alpha) * sample - ((next_alpha - alpha) / divisor) * output


def _extrapolated(outputs: list[Latent]) -> Latent:
    """Apply formula 12, or its lower orders while there are fewer than four outputs."""
    match outputs:
        case [e1]:
            output = e1
        case [e2, e1]:
            output = (3 * e1 - e2) / 2
        case [e3, e2, e1]:
            output = (23 * e1 - 16 * e2 + 5 * e3) / 12
        case [e4, e3, e2, e1]:
            output = (55 * e1 - 59 * e2 + 37 * e3 - 9 * e4) / 24
        case _:
            raise RuntimeError(f"There are {len(outputs)} outputs.")
    return output
