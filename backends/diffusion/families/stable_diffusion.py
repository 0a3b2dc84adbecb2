"""Stable Diffusion 1 and 2, models distilled from them (LCM), and AnimateDiff: one CLIP text encoder and a UNet.

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
    """Encodes prompts and applies guidance as Stable Diffusion 1 and 2 do (`Family`); the base of later families."""

    def __init__(self, config: PipelineConfig, text_encoders: TextEncoders) -> None:
        self._text_encoders = text_encoders
        self._guidance = config.guidance
        # Most requests have no negative prompt, so the encoding of the empty prompt is cached.
        self._empty = functools.cache(lambda: self.encode([""])[0])

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        """Return the inputs of a run (`Family`).

        With classifier-free guidance above 1 each step computes two rows, otherwise one.
        """
        self._text_encoders.check_length(prompt, "prompt")
        if self._guidance != "classifier-free":
            if negative:
                raise UnsupportedOption("This model takes no negative prompt.", "negative_prompt")
            guidance = {"guidance": np.array(scale, np.float32)} if self._guidance == "embedded" else {}
            return GuidedPrompt({**self.add_size_inputs(self.encode([prompt])[0], size), **guidance}, None, scale)
        if negative:
            self._text_encoders.check_length(negative, "negative_prompt")
        if scale <= 1:
            if negative:
                raise InvalidValue(
                    f"This has no effect with a guidance_scale of {scale:g}; send a guidance_scale above 1.",
                    "negative_prompt",
                )
            return GuidedPrompt(self.add_size_inputs(self.encode([prompt])[0], size), None, scale)
        if negative:
            positive, unwanted = self.encode([prompt, negative])
        else:
            (positive,), unwanted = self.encode([prompt]), self.empty_prompt(given=negative is not None)
        return GuidedPrompt(self.add_size_inputs(positive, size), self.add_size_inputs(unwanted, size), scale)

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """Return the conditioning of each text, without the inputs that depend on the image size."""
        outputs = self._text_encoders.encode(0, texts, ["hidden_states"])
        return [{"encoder_hidden_states": states} for states in outputs["hidden_states"]]

    def empty_prompt(self, *, given: bool) -> Conditioning:
        """Return the conditioning of an empty negative prompt; `given` if the request itself sent an empty one."""
        return self._empty()

    def add_size_inputs(self, condition: Conditioning, size: tuple[int, int]) -> Conditioning:
        """Add the inputs that depend on the image size: none in this family."""
        return condition

    def denoiser_inputs(self, samples: Floats, timesteps: Floats) -> dict[str, Array]:
        """Return the latents unchanged."""
        return {"sample": samples, "timestep": timesteps}

    def denoiser_output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """Return the prediction unchanged."""
        return predicted
