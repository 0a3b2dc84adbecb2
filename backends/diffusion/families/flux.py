"""Flux: a pooled CLIP vector, the states of T5, and a transformer over patches of two by two latent cells.

The rules are those of diffusers' `FluxPipeline`.
"""

import numpy as np

from backends.diffusion.components import Array
from backends.diffusion.families.family import Floats, GuidedPrompt
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders
from backends.serving.errors import UnsupportedOption

_NUM_TIMESTEPS = np.float32(1000)


class Flux:
    """Encodes prompts, shapes latents and applies guidance as FLUX pipelines do (`Family`)."""

    def __init__(self, config: PipelineConfig, text_encoders: TextEncoders) -> None:
        self._text_encoders = text_encoders
        self._factor = config.vae.factor
        self._has_guidance_input = config.guidance == "embedded"

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        """Return the inputs of a run (`Family`).

        The model was distilled from a guided one, so that it runs once per step.
        """
        if negative:
            raise UnsupportedOption("This model takes no negative prompt.", "negative_prompt")
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
        """Split latents into patches, row by row: float32[n, h / 2 * w / 2, 4 C]; scale timesteps to 0..1."""
        n, channels, height, width = samples.shape
        patches = samples.reshape(n, channels, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3, 5)
        return {"hidden_states": patches.reshape(n, -1, channels * 4), "timestep": timesteps / _NUM_TIMESTEPS}

    def denoiser_output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """Join the patches to latents."""
        n, channels, height, width = shape
        joined = predicted.reshape(n, height // 2, width // 2, channels, 2, 2).transpose(0, 3, 1, 4, 2, 5)
        return np.ascontiguousarray(joined.reshape(shape))

    def _image_ids(self, size: tuple[int, int]) -> Floats:
        """Return the row and column of each patch in columns 1 and 2: float32[patches, 3]; column 0 is unused."""
        width, height = (side // self._factor // 2 for side in size)
        ids = np.zeros((height, width, 3), np.float32)
        ids[..., 1] = np.arange(height)[:, None]
        ids[..., 2] = np.arange(width)[None, :]
        return ids.reshape(-1, 3)
