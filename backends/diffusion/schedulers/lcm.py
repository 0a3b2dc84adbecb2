"""Latent consistency models: Luo et al. 2023, algorithm 3; diffusers' `LCMScheduler`."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers.betas import alphas_cumprod
from backends.diffusion.schedulers.ddim import refuse_thresholding
from backends.diffusion.schedulers.options import Prediction, TrainingOptions
from backends.diffusion.schedulers.plan import FamilyConfig, Latent, SolverState, UnscaledPlan
from backends.diffusion.schedulers.predictions import mix_noise, predict_original_and_noise
from backends.diffusion.schedulers.spacing import check_steps, first_step

_SIGMA_DATA = 0.5


@dataclass(frozen=True, slots=True)
class LCMOptions(TrainingOptions):
    """The options of diffusers' `LCMScheduler`, but for `set_alpha_to_one`, `steps_offset` and `timestep_spacing`.

    These have no effect there.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    original_inference_steps: int = 50
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    prediction_type: Prediction = "epsilon"
    thresholding: bool = False
    timestep_scaling: float = 10.0
    rescale_betas_zero_snr: bool = False


class LCM:
    """The scheduler of latent consistency models: few steps, with fresh noise between them (`Scheduler`)."""

    def __init__(self, options: LCMOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options contradict one another."""
        refuse_thresholding(options.thresholding)
        if not 1 <= options.original_inference_steps <= options.num_train_timesteps:
            raise ValueError(f"The option original_inference_steps cannot be {options.original_inference_steps}.")
        if options.rescale_betas_zero_snr and options.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr needs another prediction_type than epsilon: the first timestep is pure noise."
            )
        self._options = options
        self._family_config = family_config
        self._alphas = alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "LCMPlan":
        """Return a plan of `steps` steps, at most as many as the model was distilled with (`Scheduler.plan`)."""
        options = self._options
        distilled = options.original_inference_steps
        check_steps(steps, distilled)
        falling = np.arange(distilled, 0, -1) * (options.num_train_timesteps // distilled) - 1
        chosen = np.floor(np.linspace(0, distilled, steps, endpoint=False)).astype(np.int64)
        timesteps = falling[chosen][first_step(steps, strength, self._family_config.family) :]
        alphas = self._alphas[timesteps]
        return LCMPlan(
            timesteps=timesteps.astype(np.float32),
            alphas=alphas,
            scaling=options.timestep_scaling,
            prediction=options.prediction_type,
            clip=options.clip_sample_range if options.clip_sample else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class LCMPlan(UnscaledPlan):
    """The steps of the LCM solver for one image (`Plan`).

    `alphas` are the shares of the image before each run, float32[runs].
    """

    timesteps: npt.NDArray[np.float32]
    alphas: npt.NDArray[np.float32]
    scaling: float
    prediction: Prediction
    clip: float | None

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`); each run but the last draws noise."""
        original, _ = predict_original_and_noise(self.prediction, model_output, sample, float(self.alphas[i]))
        if self.clip is not None:
            original = original.clip(-self.clip, self.clip)
        time = float(self.timesteps[i]) * self.scaling
        skip_scale = _SIGMA_DATA**2 / (time**2 + _SIGMA_DATA**2)
        output_scale = time / math.sqrt(time**2 + _SIGMA_DATA**2)
        denoised = output_scale * original + skip_scale * sample
        if i == len(self.timesteps) - 1:
            return denoised
        return mix_noise(denoised, noise.normal(model_output.shape), float(self.alphas[i + 1]))

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        return mix_noise(latent, noise, float(self.alphas[i]))
