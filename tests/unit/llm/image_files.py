"""Image files, and the image configuration of a small model."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from backends.llm.vision.config import VisionConfig
from tests.fakes.tiny_smolvlm import TOKENS_PER_TILE

IMAGE_TOKEN_ID = 300


def vision_config(**values: Any) -> VisionConfig:
    options: dict[str, Any] = {
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
        "image_token_id": IMAGE_TOKEN_ID,
        "fake_token": "<fake_token_around_image>",
        "global_token": "<global-img>",
        "tile_token": "<row_{row}_col_{column}>",
    }
    return VisionConfig(**options | values)


def noise_image(width: int, height: int, seed: int = 1, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
    return image.convert(mode)


def base64_image(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return base64.b64encode(file.getvalue())
