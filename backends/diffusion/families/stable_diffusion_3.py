"""Stable Diffusion 3: two CLIP text encoders, optionally T5, and a transformer.

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
    """Encodes prompts as Stable Diffusion 3 does, with three text encoders (`Family`).

    `extras` hold `joint_attention_dim`, the width of the states, and `t5_tokens`, the number of zero states that
    replace those of T5 if the pipeline has none.
    """

    def __init__(self, config: PipelineConfig, text_encoders: TextEncoders) -> None:
        super().__init__(config, text_encoders)
        self._width = int(config.extras["joint_attention_dim"])
        self._t5_tokens = int(config.extras.get("t5_tokens", 256))

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """Concatenate the states of CLIP, padded with zeros to the width of T5, and of T5; add CLIP's pooled states."""
        clips = [
            self._text_encoders.encode(index, texts, ["hidden_states", "pooled"]) for index in range(_NUM_CLIP_ENCODERS)
        ]
        clip_states = np.concatenate([outputs["hidden_states"] for outputs in clips], axis=-1)
        pooled = np.concatenate([outputs["pooled"] for outputs in clips], axis=-1)
        padded = np.pad(clip_states, [(0, 0), (0, 0), (0, self._width - clip_states.shape[-1])])
        if len(self._text_encoders) > _NUM_CLIP_ENCODERS:
            t5_states = self._text_encoders.encode(_NUM_CLIP_ENCODERS, texts, ["hidden_states"])["hidden_states"]
        else:
            t5_states = np.zeros((len(texts), self._t5_tokens, self._width), np.float32)
        states = np.concatenate([padded, t5_states], axis=1)
        return [
            {"encoder_hidden_states": text_states, "pooled_projections": text_pooled}
            for text_states, text_pooled in zip(states, pooled, strict=True)
        ]
