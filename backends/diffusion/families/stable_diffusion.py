"""Stable Diffusion 1 and 2, and their distilled kin (LCM): one CLIP text encoder and a UNet.

The rules are those of diffusers' `StableDiffusionPipeline`.
"""

import functools
from collections.abc import Sequence

import numpy as np

from backends.diffusion.components import Array
from backends.diffusion.description import Description
from backends.diffusion.families.family import Condition, Floats, Guided
from backends.diffusion.texts import TextEncoders
from backends.serving.errors import InvalidValue, UnsupportedOption


class StableDiffusion:
    """`backends.diffusion.families.Family`, and what those of its kin have in common."""

    def __init__(self, description: Description, texts: TextEncoders) -> None:
        self._texts = texts
        self._guidance = description.guidance
        # No prompt at all is what most requests are led away from.
        self._empty = functools.cache(lambda: self.encode([""])[0])

    def guide(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> Guided:
        """Encode the texts. A denoiser that is told the scale runs once a step, one that is led away twice."""
        self._texts.check(prompt, "prompt")
        if self._guidance != "classifier-free":
            if negative:
                raise UnsupportedOption("This model is not led away from anything.", "negative_prompt")
            told = {"guidance": np.array(scale, np.float32)} if self._guidance == "embedded" else {}
            return Guided({**self.place(self.encode([prompt])[0], size), **told}, None, scale)
        if negative:
            self._texts.check(negative, "negative_prompt")
        if scale <= 1:
            if negative:
                raise InvalidValue(
                    f"A guidance of {scale:g} leads away from nothing: send a guidance_scale above 1 beside this.",
                    "negative_prompt",
                )
            return Guided(self.place(self.encode([prompt])[0], size), None, scale)
        if negative:
            towards, away = self.encode([prompt, negative])
        else:
            (towards,), away = self.encode([prompt]), self.empty(given=negative is not None)
        return Guided(self.place(towards, size), self.place(away, size), scale)

    def encode(self, texts: Sequence[str]) -> list[Condition]:
        """What the texts say to the denoiser, whatever the size of the picture."""
        found = self._texts.encode(0, texts, ["hidden_states"])
        return [{"encoder_hidden_states": states} for states in found["hidden_states"]]

    def empty(self, *, given: bool) -> Condition:
        """What no text says to the denoiser; `given` where the request says itself that it is empty."""
        return self._empty()

    def place(self, condition: Condition, size: tuple[int, int]) -> Condition:
        """Add what depends on the size of the picture."""
        return condition

    def inputs(self, samples: Floats, timesteps: Floats) -> dict[str, Array]:
        """The latents as they are."""
        return {"sample": samples, "timestep": timesteps}

    def output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """The prediction as it is."""
        return predicted
