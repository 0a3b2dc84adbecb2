"""Conversion of a denoiser's output to the predicted image and noise, and mixing of the two."""

import math

import numpy as np

from backends.diffusion.schedulers.options import Prediction
from backends.diffusion.schedulers.plan import Latent


def mix_noise(original: Latent, noise: Latent, alpha: float) -> Latent:
    """Return a sample in which the image has the share `alpha` of the variance, in float32."""
    return math.sqrt(alpha) * original + math.sqrt(1 - alpha) * noise


def predict_original_and_noise(
    prediction: Prediction, output: Latent, sample: Latent, alpha: float
) -> tuple[Latent, Latent]:
    """Return the predicted image and noise of a sample; `alpha` is the image's share of its variance."""
    image_scale, noise_scale = math.sqrt(alpha), math.sqrt(1 - alpha)
    match prediction:
        case "epsilon":
            return (sample - noise_scale * output) / image_scale, output
        case "sample":
            return output, (sample - image_scale * output) / noise_scale
        case "v_prediction":
            return image_scale * sample - noise_scale * output, image_scale * output + noise_scale * sample


def predict_original_at_sigma(prediction: Prediction, output: Latent, sample: Latent, sigma: np.float32) -> Latent:
    """Return the predicted image of a sample that is the image plus `sigma` times the noise."""
    original = output
    if prediction == "epsilon":
        original = sample - sigma * output
    elif prediction == "v_prediction":
        variance = sigma**2 + np.float32(1)
        original = output * (-sigma / np.sqrt(variance)) + sample / variance
    return original
