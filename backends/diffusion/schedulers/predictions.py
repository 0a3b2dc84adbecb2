"""What a denoiser says, as a picture and as noise; and the two mixed again."""

import math

import numpy as np

from backends.diffusion.schedulers.options import Prediction
from backends.diffusion.schedulers.plan import Latent


def mix_noise(original: Latent, noise: Latent, alpha: float) -> Latent:
    """A sample in which `alpha` of the variance is the picture's, in float32."""
    return math.sqrt(alpha) * original + math.sqrt(1 - alpha) * noise


def predict_original_and_noise(
    prediction: Prediction, output: Latent, sample: Latent, alpha: float
) -> tuple[Latent, Latent]:
    """The picture and the noise that a sample consists of, by the denoiser's word; `alpha` is the picture's share."""
    of_picture, of_noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    match prediction:
        case "epsilon":
            return (sample - of_noise * output) / of_picture, output
        case "sample":
            return output, (sample - of_picture * output) / of_noise
        case "v_prediction":
            return of_picture * sample - of_noise * output, of_picture * output + of_noise * sample


def predict_original_at_sigma(prediction: Prediction, output: Latent, sample: Latent, sigma: np.float32) -> Latent:
    """The picture, where the sample is the picture and `sigma` times the noise."""
    original = output
    if prediction == "epsilon":
        original = sample - sigma * output
    elif prediction == "v_prediction":
        variance = sigma**2 + np.float32(1)
        original = output * (-sigma / np.sqrt(variance)) + sample / variance
    return original
