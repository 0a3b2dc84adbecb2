"""Stable Diffusion XL and Turbo: two CLIP text encoders, and a UNet that is told the size.

The rules are those of diffusers' `StableDiffusionXLPipeline`.
"""

from collections.abc import Sequence

import numpy as np

from backends.diffusion.families.family import Conditioning
from backends.diffusion.families.stable_diffusion import StableDiffusion
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders


class StableDiffusionXL(StableDiffusion):
    """`backends.diffusion.families.Family`. `extras`: `force_zeros_for_empty_prompt`."""

    def __init__(self, description: PipelineConfig, texts: TextEncoders) -> None:
        super().__init__(description, texts)
        self._zero_empty_prompt = bool(description.extras.get("force_zeros_for_empty_prompt", True))

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """The states of all encoders side by side, and the pooled state of the last."""
        last = len(self._text_encoders) - 1
        found = [
            self._text_encoders.encode(
                place, texts, ["hidden_states", "pooled"] if place == last else ["hidden_states"]
            )
            for place in range(last + 1)
        ]
        states = np.concatenate([each["hidden_states"] for each in found], axis=-1)
        pooled = found[-1]["pooled"]
        return [{"encoder_hidden_states": one, "text_embeds": other} for one, other in zip(states, pooled, strict=True)]

    def empty_prompt(self, *, given: bool) -> Conditioning:
        """Zeros where the checkpoint was trained with them, unless the request itself says that nothing is negative."""
        empty = super().empty_prompt(given=given)
        if given or not self._zero_empty_prompt:
            return empty
        return {name: np.zeros_like(value) for name, value in empty.items()}

    def add_size_inputs(self, condition: Conditioning, size: tuple[int, int]) -> Conditioning:
        """Say that the original was as large as the picture is to be, and nothing was cut off."""
        width, height = size
        return {**condition, "time_ids": np.array([height, width, 0, 0, height, width], np.float32)}
