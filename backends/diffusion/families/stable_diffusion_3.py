"""Stable Diffusion 3: two CLIP text encoders, perhaps T5, and a transformer.

The rules are those of diffusers' `StableDiffusion3Pipeline`.
"""

from collections.abc import Sequence

import numpy as np

from backends.diffusion.families.family import Conditioning
from backends.diffusion.families.stable_diffusion import StableDiffusion
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders

_NUM_CLIP_ENCODERS = 2


class StableDiffusion3(StableDiffusion):
    """`backends.diffusion.families.Family`.

    `extras`: `joint_attention_dim`, and `t5_tokens`, which counts where T5 was left out.
    """

    def __init__(self, description: PipelineConfig, texts: TextEncoders) -> None:
        super().__init__(description, texts)
        self._width = int(description.extras["joint_attention_dim"])
        self._t5_tokens = int(description.extras.get("t5_tokens", 256))

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """The states of CLIP, widened by zeros, before those of T5; and the pooled states of CLIP."""
        clips = [
            self._text_encoders.encode(place, texts, ["hidden_states", "pooled"]) for place in range(_NUM_CLIP_ENCODERS)
        ]
        short = np.concatenate([each["hidden_states"] for each in clips], axis=-1)
        pooled = np.concatenate([each["pooled"] for each in clips], axis=-1)
        wide = np.pad(short, [(0, 0), (0, 0), (0, self._width - short.shape[-1])])
        if len(self._text_encoders) > _NUM_CLIP_ENCODERS:
            long = self._text_encoders.encode(_NUM_CLIP_ENCODERS, texts, ["hidden_states"])["hidden_states"]
        else:
            long = np.zeros((len(texts), self._t5_tokens, self._width), np.float32)
        states = np.concatenate([wide, long], axis=1)
        return [
            {"encoder_hidden_states": one, "pooled_projections": other}
            for one, other in zip(states, pooled, strict=True)
        ]
