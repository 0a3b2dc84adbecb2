"""Wan 2.1 and 2.2: a UMT5 text encoder, and a transformer over the frames of a video.

The rules are those of diffusers' `WanPipeline`.
"""

import html
from collections.abc import Sequence

from backends.diffusion.families.family import Conditioning
from backends.diffusion.families.stable_diffusion import StableDiffusion


class Wan(StableDiffusion):
    """Encodes prompts as Wan does: the states of one text encoder, zero beyond the text (`Family`)."""

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """Return the states of each text."""
        states = self._text_encoders.encode_masked(0, [_clean(text) for text in texts])
        return [{"encoder_hidden_states": text_states} for text_states in states]


def _clean(text: str) -> str:
    """Resolve HTML entities twice, and join words by single spaces.

    diffusers also repairs wrongly decoded characters if the package ftfy is installed; this function does not.
    """
    return " ".join(html.unescape(html.unescape(text)).split())
