"""DDIM without added noise: Song et al. 2020, equation 12 with eta 0; diffusers' `DDIMScheduler`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers.betas import alphas_cumprod
from backends.diffusion.schedulers.options import Prediction, Spacing, TrainingOptions
from backends.diffusion.schedulers.plan import FamilyConfig, Latent, SolverState, UnscaledPlan
from backends.diffusion.schedulers.predictions import mix_noise, predict_original_and_noise
from backends.diffusion.schedulers.spacing import check_steps, check_timesteps, first_step, spaced_timesteps


@dataclass(frozen=True, slots=True)
class DDIMOptions(TrainingOptions):
    """The options of diffusers' `DDIMScheduler`."""

    clip_sample: bool = True
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: Prediction = "epsilon"
    thresholding: bool = False
    timestep_spacing: Spacing = "leading"
    rescale_betas_zero_snr: bool = False


class DDIM:
    """Makes plans of the DDIM solver (`Scheduler`)."""

    def __init__(self, options: DDIMOptions, family_config: FamilyConfig) -> None:
        """Raises `ValueError` if the options contradict one another."""
        refuse_thresholding(options.thresholding)
        self._options = options
        self._family_config = family_config
        self._alphas = alphas_cumprod(options, zero_terminal_snr=options.rescale_betas_zero_snr)
        if self._alphas[-1] == 0 and options.prediction_type == "epsilon" and options.timestep_spacing != "leading":
            raise ValueError(
                "rescale_betas_zero_snr needs another prediction_type than epsilon: the first timestep is pure noise."
            )

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> "DDIMPlan":
        """Return a plan of `steps` steps, or of the share `strength` at their end (`Scheduler.plan`)."""
        options, trained = self._options, self._options.num_train_timesteps
        check_steps(steps, trained)
        timesteps = (
            spaced_timesteps(options.timestep_spacing, trained, steps, options.steps_offset).round().astype(np.int64)
        )
        check_timesteps(timesteps, trained)
        timesteps = timesteps[first_step(steps, strength, self._family_config.family) :]
        before = timesteps - trained // steps
        final = np.float32(1) if options.set_alpha_to_one else self._alphas[0]
        return DDIMPlan(
            timesteps=timesteps.astype(np.float32),
            alphas=self._alphas[timesteps],
            next_alphas=np.where(before >= 0, self._alphas[before], final),
            prediction=options.prediction_type,
            clip=options.clip_sample_range if options.clip_sample else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class DDIMPlan(UnscaledPlan):
    """The steps of the DDIM solver for one image (`Plan`).

    `alphas` and `next_alphas` are the shares of the image before and after each run, float32[runs].
    """

    timesteps: npt.NDArray[np.float32]
    alphas: npt.NDArray[np.float32]
    next_alphas: npt.NDArray[np.float32]
    prediction: Prediction
    clip: float | None

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i` (`Plan.step`); uses neither `state` nor `noise`."""
        original, epsilon = predict_original_and_noise(self.prediction, model_output, sample, float(self.alphas[i]))
        if self.clip is not None:
            original = original.clip(-self.clip, self.clip)
        return mix_noise(original, epsilon, float(self.next_alphas[i]))

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with noise (`Plan.add_noise`)."""
        return mix_noise(latent, noise, float(self.alphas[i]))


def refuse_thresholding(thresholding: bool) -> None:
    """Raise `ValueError` if it is on: thresholding is for models that denoise pixels, not latents."""
    if thresholding:
        raise ValueError("The option thresholding is not supported; it is not meant for latents.")
