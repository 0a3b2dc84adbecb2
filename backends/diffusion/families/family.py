"""What the loop asks of a family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.diffusion.components import Array

Conditioning = Mapping[str, Array]
"""What steers the denoiser towards one prompt: its inputs beside sample and timestep, without a batch dimension."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GuidedPrompt:
    """A prompt for the denoiser. Where there is `away`, the image is led from it to `towards` by `scale`."""

    positive: Conditioning
    negative: Conditioning | None
    scale: float


class Family(Protocol):
    """Rules of one pipeline. May be used from any thread."""

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        """Encode a prompt for a picture of `size` (width, height in pixels).

        Raises `ContextLengthExceeded`, `InvalidValue` or `UnsupportedOption`, naming the input, or what components
        raise.
        """

    def denoiser_inputs(self, samples: Floats, timesteps: Floats) -> dict[str, Array]:
        """What the denoiser takes for latents float32[n, C, h, w] at timesteps float32[n]."""

    def denoiser_output(self, predicted: Floats, shape: tuple[int, ...]) -> Floats:
        """What the denoiser said, as float32 of the `shape` [n, C, h, w] of the latents."""
