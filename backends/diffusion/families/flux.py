"""Flux: CLIP for the whole, T5 for the words, and a transformer over patches of two by two.

The rules are those of diffusers' `FluxPipeline`.
"""

import numpy as np

from backends.diffusion.components import Array
from backends.diffusion.families.family import Floats, GuidedPrompt
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders
from backends.serving.errors import UnsupportedOption

_TIMESTEPS = np.float32(1000)


class Flux:
    """`backends.diffusion.families.Family`."""

    def __init__(self, description: PipelineConfig, texts: TextEncoders) -> None:
        self._text_encoders = texts
        self._factor = description.vae.factor
        self._has_guidance_input = description.guidance == "embedded"

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        """Encode the prompt. The model was distilled from a guided one, and runs once a step."""
        if negative:
            raise UnsupportedOption("This model is not led away from anything.", "negative_prompt")
        self._text_encoders.check_length(prompt, "prompt")
        pooled = self._text_encoders.encode(0, [prompt], ["pooled"])["pooled"][0]
        states = self._text_encoders.encode(1, [prompt], ["hidden_states"])["hidden_states"][0]
        condition: dict[str, Array] = {
            "encoder_hidden_states": states,
            "pooled_projections": pooled,
            "txt_ids": np.zeros((len(states), 3), np.float32),
            "img_ids": self._image_ids(size),
        }
        if self._has_guidance_input:
            condition["guidance"] = np.array(scale, np.float32)
        return GuidedPrompt(condition, None, scale)

    def denoiser_inputs(self, samples: Floats, timesteps: Floats) -> dict[str, Array]:
        """Patches of two by two, row after row: float32[n, h / 2 * w / 2, 4 C]; timesteps from 0 to 1."""
        n, channels, height, width = samples.shape
        cut = samples.reshape(n, channels, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3, 5)
        return {"hidden_states": cut.reshape(n, -1, channels * 4), "timestep": timesteps / _TIMESTEPS}

    def denoiser_output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """Patches put together."""
        n, channels, height, width = shape
        cut = predicted.reshape(n, height // 2, width // 2, channels, 2, 2).transpose(0, 3, 1, 4, 2, 5)
        return np.ascontiguousarray(cut.reshape(shape))

    def _image_ids(self, size: tuple[int, int]) -> Floats:
        """Row and column of each patch: float32[patches, 3], of which the first is not used."""
        width, height = (side // self._factor // 2 for side in size)
        places = np.zeros((height, width, 3), np.float32)
        places[..., 1] = np.arange(height)[:, None]
        places[..., 2] = np.arange(width)[None, :]
        return places.reshape(-1, 3)
