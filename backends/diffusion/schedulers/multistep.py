"""What solvers of several steps share: their options, and the amounts of noise that they go through."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from backends.diffusion.schedulers.options import Spacing, TrainingOptions
from backends.diffusion.schedulers.plan import Latent
from backends.diffusion.schedulers.spacing import DoubleArray

FlowPrediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


@dataclass(frozen=True, slots=True)
class MultistepOptions(TrainingOptions):
    """Options that `DPMSolverMultistepScheduler` and `UniPCMultistepScheduler` have in common."""

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


def check_sigma_options(options: MultistepOptions, another: str | None) -> None:
    """Raises `ValueError` where the options, `another` among them, demand more than one row of amounts of noise."""
    names = ("use_karras_sigmas", "use_exponential_sigmas", "use_flow_sigmas")
    demanded = [name for name in names if getattr(options, name)] + ([another] if another else [])
    if len(demanded) > 1:
        raise ValueError(f"The options {' and '.join(demanded)} exclude each other.")


@dataclass(frozen=True, slots=True, eq=False)
class NoiseLevels:
    """Amounts of noise before each run, and after the last: float64[runs + 1] each.

    A sample is `alphas` times the picture and `sigmas` times the noise; `ratios` is what the solver was
    planned with, and `lambdas` are the logarithms of alpha over sigma, infinite where no noise is left.
    """

    ratios: DoubleArray
    alphas: DoubleArray
    sigmas: DoubleArray
    lambdas: DoubleArray

    @classmethod
    def from_ratios(cls, ratios: DoubleArray, *, flow: bool) -> "NoiseLevels":
        """With `flow` the ratios are shares of the noise; else they say how much there is for each picture."""
        alphas = 1 - ratios if flow else 1 / np.sqrt(ratios**2 + 1)
        sigmas = ratios if flow else ratios * alphas
        with np.errstate(divide="ignore"):
            return cls(ratios, alphas, sigmas, np.log(alphas) - np.log(sigmas))

    def predict_original(self, prediction: FlowPrediction, output: Latent, sample: Latent, i: int) -> Latent:
        """The picture in the sample before run `i`, by the denoiser's word."""
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
        """A picture with as much noise as before run `i`."""
        return float(self.alphas[i]) * latent + float(self.sigmas[i]) * noise
