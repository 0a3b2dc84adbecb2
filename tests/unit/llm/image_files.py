"""Image files, and the image configuration of a small model."""

import base64
import io

import numpy as np
from PIL import Image

from backends.llm.vision.config import VisionConfig
from tests.fakes.tiny_smolvlm import TOKENS_PER_TILE

IMAGE = 300


def vision_config(**values):
    return VisionConfig(
        **{
            "tile": 64,
            "longest_edge": 256,
            "largest_side": 4096,
            "split": True,
            "resample": 1,
            "rescale_factor": 1 / 255,
            "mean": (0.5, 0.4, 0.3),
            "std": (0.5, 0.25, 0.7),
            "tokens_per_tile": TOKENS_PER_TILE,
            "image_token": "<image>",
            "image_token_id": IMAGE,
            "fake_token": "<fake_token_around_image>",
            "global_token": "<global-img>",
            "tile_token": "<row_{row}_col_{column}>",
        }
        | values
    )


def noise_image(width, height, seed=1, mode="RGB"):
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
    return image.convert(mode)


def base64_image(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return base64.b64encode(file.getvalue())
