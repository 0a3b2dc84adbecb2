"""The interface of a model family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.diffusion.components import Array

Conditioning = Mapping[str, Array]
"""The denoiser's inputs for one prompt, all but sample and timestep, by name and without a batch dimension."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GuidedPrompt:
    """An encoded prompt. With `negative`, classifier-free guidance of `scale` leads from it towards `positive`."""

    positive: Conditioning
    negative: Conditioning | None
    scale: float


class Family(Protocol):
    """The rules of a pipeline's family. May be used from any thread."""

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        """Encode a prompt for an image or a video of `size`: width and height in pixels.

        Raises `ContextLengthExceeded`, `InvalidValue` or `UnsupportedOption`, naming the input, or what `Components`
        raise.
        """

    def denoiser_inputs(self, samples: Floats, timesteps: Floats) -> dict[str, Array]:
        """Return the denoiser's inputs for latents, float32[n, C, h, w], at timesteps, float32[n].

        Those of videos are [n, C, F, h, w], and [n, F] where each latent frame has a timestep of its own.
        """

    def denoiser_output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """Convert the denoiser's output to float32 of the latents' `shape`."""
