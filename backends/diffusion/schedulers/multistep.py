"""The part that multistep solvers share: their options, and their noise levels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from backends.diffusion.schedulers.options import Spacing, TrainingOptions
from backends.diffusion.schedulers.plan import Latent
from backends.diffusion.schedulers.spacing import DoubleArray

FlowPrediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


@dataclass(frozen=True, slots=True)
class MultistepOptions(TrainingOptions):
    """The options that diffusers' `DPMSolverMultistepScheduler` and `UniPCMultistepScheduler` share."""

    solver_order: Literal[1, 2, 3] = 2
    prediction_type: FlowPrediction = "epsilon"
    thresholding: bool = False
    lower_order_final: bool = True
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: Literal[False] | None = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    timestep_spacing: Spacing = "linspace"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False
    use_dynamic_shifting: Literal[False] = False


def check_sigma_options(options: MultistepOptions, extra: str | None) -> None:
    """Raise `ValueError` if several options, `extra` included, each demand their own sequence of noise levels."""
    names = ("use_karras_sigmas", "use_exponential_sigmas", "use_flow_sigmas")
    enabled = [name for name in names if getattr(options, name)] + ([extra] if extra else [])
    if len(enabled) > 1:
        raise ValueError(f"The options {' and '.join(enabled)} exclude each other.")


@dataclass(frozen=True, slots=True, eq=False)
class NoiseLevels:
    """The noise levels before each run and after the last: float64[runs + 1] each.

    A sample is `alphas` times the image plus `sigmas` times the noise. `ratios` are the levels of the plan, and
    `lambdas` the logarithms of alpha over sigma, infinite where no noise is left.
    """

    ratios: DoubleArray
    alphas: DoubleArray
    sigmas: DoubleArray
    lambdas: DoubleArray

    @classmethod
    def from_ratios(cls, ratios: DoubleArray, *, flow: bool) -> "NoiseLevels":
        """Derive the levels from `ratios`: shares of noise with `flow`, otherwise ratios of noise to image."""
        alphas = 1 - ratios if flow else 1 / np.sqrt(ratios**2 + 1)
        sigmas = ratios if flow else ratios * alphas
        with np.errstate(divide="ignore"):
            return cls(ratios, alphas, sigmas, np.log(alphas) - np.log(sigmas))

    def predict_original(self, prediction: FlowPrediction, output: Latent, sample: Latent, i: int) -> Latent:
        """Return the image that the denoiser's output predicts for the sample before run `i`."""
        alpha, sigma = float(self.alphas[i]), float(self.sigmas[i])
        match prediction:
            case "epsilon":
                return (sample - sigma * output) / alpha
            case "sample":
                return output
            case "v_prediction":
                return alpha * sample - sigma * output
            case "flow_prediction":
                return sample - float(self.ratios[i]) * output

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Return the latent with the noise level before run `i`."""
        return float(self.alphas[i]) * latent + float(self.sigmas[i]) * noise
