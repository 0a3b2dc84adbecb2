"""Stable Diffusion 1 and 2, and their distilled kin (LCM): one CLIP text encoder and a UNet.

The rules are those of diffusers' `StableDiffusionPipeline`.
"""

import functools
from collections.abc import Sequence

import numpy as np

from backends.diffusion.components import Array
from backends.diffusion.families.family import Conditioning, Floats, GuidedPrompt
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders
from backends.serving.errors import InvalidValue, UnsupportedOption


class StableDiffusion:
    """`backends.diffusion.families.Family`, and what those of its kin have in common."""

    def __init__(self, description: PipelineConfig, texts: TextEncoders) -> None:
        self._text_encoders = texts
        self._guidance = description.guidance
        # No prompt at all is what most requests are led away from.
        self._empty = functools.cache(lambda: self.encode([""])[0])

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        """Encode the texts. A denoiser that is told the scale runs once a step, one that is led away twice."""
        self._text_encoders.check_length(prompt, "prompt")
        if self._guidance != "classifier-free":
            if negative:
                raise UnsupportedOption("This model is not led away from anything.", "negative_prompt")
            told = {"guidance": np.array(scale, np.float32)} if self._guidance == "embedded" else {}
            return GuidedPrompt({**self.add_size_inputs(self.encode([prompt])[0], size), **told}, None, scale)
        if negative:
            self._text_encoders.check_length(negative, "negative_prompt")
        if scale <= 1:
            if negative:
                raise InvalidValue(
                    f"A guidance of {scale:g} leads away from nothing: send a guidance_scale above 1 beside this.",
                    "negative_prompt",
                )
            return GuidedPrompt(self.add_size_inputs(self.encode([prompt])[0], size), None, scale)
        if negative:
            towards, away = self.encode([prompt, negative])
        else:
            (towards,), away = self.encode([prompt]), self.empty_prompt(given=negative is not None)
        return GuidedPrompt(self.add_size_inputs(towards, size), self.add_size_inputs(away, size), scale)

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """What the texts say to the denoiser, whatever the size of the picture."""
        found = self._text_encoders.encode(0, texts, ["hidden_states"])
        return [{"encoder_hidden_states": states} for states in found["hidden_states"]]

    def empty_prompt(self, *, given: bool) -> Conditioning:
        """What no text says to the denoiser; `given` where the request says itself that it is empty."""
        return self._empty()

    def add_size_inputs(self, condition: Conditioning, size: tuple[int, int]) -> Conditioning:
        """Add what depends on the size of the picture."""
        return condition

    def denoiser_inputs(self, samples: Floats, timesteps: Floats) -> dict[str, Array]:
        """The latents as they are."""
        return {"sample": samples, "timestep": timesteps}

    def denoiser_output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """The prediction as it is."""
        return predicted
