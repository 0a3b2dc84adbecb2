"""Stable Diffusion XL and Turbo: two CLIP text encoders, and a UNet that takes the image size as an input.

The rules are those of diffusers' `StableDiffusionXLPipeline`.
"""

from collections.abc import Sequence

import numpy as np

from backends.diffusion.families.family import Conditioning
from backends.diffusion.families.stable_diffusion import StableDiffusion
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders


class StableDiffusionXL(StableDiffusion):
    """Encodes prompts as Stable Diffusion XL does, with sizes and pooled embeddings (`Family`).

    `extras` may hold `force_zeros_for_empty_prompt`.
    """

    def __init__(self, config: PipelineConfig, text_encoders: TextEncoders) -> None:
        super().__init__(config, text_encoders)
        self._zero_empty_prompt = bool(config.extras.get("force_zeros_for_empty_prompt", True))

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """Concatenate the states of all encoders along the last axis, and add the pooled state of the last encoder."""
        last = len(self._text_encoders) - 1
        outputs = [
            self._text_encoders.encode(
                index, texts, ["hidden_states", "pooled"] if index == last else ["hidden_states"]
            )
            for index in range(last + 1)
        ]
        states = np.concatenate([encoded["hidden_states"] for encoded in outputs], axis=-1)
        pooled = outputs[-1]["pooled"]
        return [
            {"encoder_hidden_states": text_states, "text_embeds": text_pooled}
            for text_states, text_pooled in zip(states, pooled, strict=True)
        ]

    def empty_prompt(self, *, given: bool) -> Conditioning:
        """Return zeros if the checkpoint was trained with them, unless the request itself sent an empty prompt."""
        empty = super().empty_prompt(given=given)
        if given or not self._zero_empty_prompt:
            return empty
        return {name: np.zeros_like(value) for name, value in empty.items()}

    def add_size_inputs(self, condition: Conditioning, size: tuple[int, int]) -> Conditioning:
        """Add the original size, no crop, and the target size; the original size equals the target."""
        width, height = size
        return {**condition, "time_ids": np.array([height, width, 0, 0, height, width], np.float32)}
