"""Each part of a video pipeline as a PyTorch network. Tensors are those of `builders.video.parts`.

In fp16, inputs and outputs stay float32 and are converted inside, as in `builders.diffusion.networks`.
"""

from typing import Any

import torch
from torch import Tensor

from builders.diffusion.networks import convert, load_component, to_float
from builders.diffusion.parts import PipelinePart
from builders.video import vae_streams
from builders.video.motion_pipeline import MotionPipeline
from builders.video.pipeline import VideoPipeline
from builders.video.vae_caches import decoder_caches, encoder_caches
from builders.video.wan_layers import FrameTimes, rewrite_attention


def load_part(
    pipeline: VideoPipeline, part: PipelinePart, *, half: bool = False, rewritten: bool = False, fused: bool = False
) -> torch.nn.Module:
    """Load one part in fp32, or `half` in fp16; the VAE is always fp32.

    `rewritten` gives the denoiser the attention that is exported, which computes the same; otherwise it has diffusers'.
    `fused` writes that as one operator of onnxruntime, which PyTorch cannot run. Raises what the libraries raise if the
    weights do not match the config.
    """
    if isinstance(pipeline, MotionPipeline):
        from builders.video.motion_networks import load_motion_part

        return load_motion_part(pipeline, part, half=half, rewritten=rewritten, fused=fused)
    dtype = torch.float16 if half and part.component != "vae" else torch.float32
    # transformers' other attention cannot be exported with a mask.
    options = {"attn_implementation": "eager"} if part.kind in ("umt5", "clip-vision") else {}
    model = load_component(pipeline, part.component, dtype, **options)
    if part.kind == "wan":
        if rewritten or fused:
            rewrite_attention(model, fused=fused)
        return Denoiser(model, expand_timesteps=pipeline.expand_timesteps).eval()
    if part.kind in ("umt5", "clip-vision"):
        return (TextEncoder(model) if part.kind == "umt5" else ImageEncoder(model)).eval()
    kinds: dict[str, Any] = {
        "wan-decoder-first": vae_streams.DecoderStart,
        "wan-decoder-next": vae_streams.DecoderStep,
        "wan-encoder-first": vae_streams.EncoderStart,
        "wan-encoder-next": vae_streams.EncoderStep,
    }
    caches = decoder_caches(pipeline) if "decoder" in part.kind else encoder_caches(pipeline)
    network: torch.nn.Module = kinds[part.kind](model, caches).eval()
    return network


class TextEncoder(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """`input_ids int64[batch, tokens], attention_mask int64[batch, tokens] -> hidden_states[batch, tokens, width]`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode token ids. States of tokens beyond the mask mean nothing."""
        return to_float(self.model(input_ids=input_ids, attention_mask=attention_mask)[0])


class ImageEncoder(torch.nn.Module):  # type: ignore[misc]
    """`image[batch, 3, side, side] -> image_embeds[batch, patches + 1, width]`. The image is normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Encode pictures to the states before the last layer."""
        output = self.model(convert(image, self.model.dtype), output_hidden_states=True)
        return to_float(output.hidden_states[-2])


class Denoiser(torch.nn.Module):  # type: ignore[misc]
    """`sample[batch, channels, frames, h, w], timestep, encoder_hidden_states, … -> noise_pred` like `sample`."""

    def __init__(self, model: Any, *, expand_timesteps: bool) -> None:
        super().__init__()
        self.model = model
        self._times = FrameTimes(model.condition_embedder) if expand_timesteps else None
        if self._times is not None:
            model.condition_embedder = self._times

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        condition: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise. `timestep` is [batch], or [batch, frames] where each latent frame has its own.

        `condition` [batch, channels, frames, h, w] is joined to the channels of `sample`; `image_embeds` are tokens of
        a picture.
        """
        dtype = self.model.dtype
        if self._times is not None:
            self._times.held.patches = (sample.shape[-2] // 2) * (sample.shape[-1] // 2)
        joined = sample if condition is None else torch.cat([sample, condition], dim=1)
        noise = self.model(
            hidden_states=convert(joined, dtype),
            timestep=timestep,
            encoder_hidden_states=convert(encoder_hidden_states, dtype),
            encoder_hidden_states_image=None if image_embeds is None else convert(image_embeds, dtype),
            return_dict=False,
        )[0]
        return to_float(noise)
