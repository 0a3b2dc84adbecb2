"""Each part of an AnimateDiff pipeline as a PyTorch network. Tensors are those of `builders.video.motion_parts`.

In fp16, inputs and outputs stay float32 and are converted inside, as in `builders.diffusion.networks`.
"""

from typing import Any

import torch
from torch import Tensor

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.diffusion.networks import CLIP, convert, load_component, to_float, weight_variant
from builders.diffusion.parts import PipelinePart
from builders.video.motion_layers import FusedAttention, MotionUNet
from builders.video.motion_pipeline import ADAPTER, MotionPipeline, has_adapter


def load_motion_part(
    pipeline: MotionPipeline, part: PipelinePart, *, half: bool = False, rewritten: bool = False, fused: bool = False
) -> torch.nn.Module:
    """Load one part, as `builders.video.networks.load_part` does."""
    dtype = torch.float16 if half and part.component != "vae" else torch.float32
    if part.kind == "motion-unet":
        return MotionDenoiser(load_unet(pipeline, dtype), rewritten=rewritten or fused, fused=fused).eval()
    model = load_component(pipeline, part.component, dtype)
    if part.kind == "clip":
        return CLIP(model, -1, pooled=False).eval()
    network: torch.nn.Module = (FrameEncoder if part.kind == "frame-encoder" else FrameDecoder)(model).eval()
    return network


def load_unet(pipeline: MotionPipeline, dtype: torch.dtype = torch.float32) -> Any:
    """Load the UNet with its motion layers. Raises what diffusers raises if the two do not fit together."""
    unet = load_component(pipeline, "unet", dtype)
    if not has_adapter(pipeline.index):
        return unet
    from diffusers import MotionAdapter, UNetMotionModel

    folder = pipeline.folder / ADAPTER
    adapter = MotionAdapter.from_pretrained(
        folder, variant=weight_variant(folder), dtype=dtype, **FROM_PRETRAINED_OPTIONS
    )
    return UNetMotionModel.from_unet2d(unet, adapter.to(dtype)).to(dtype).eval()


class MotionDenoiser(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """`sample[batch, channels, frames, h, w], timestep[batch], encoder_hidden_states -> noise_pred` like `sample`."""

    def __init__(self, model: Any, *, rewritten: bool, fused: bool) -> None:
        """`rewritten` computes what is exported; otherwise diffusers' own `forward` runs."""
        super().__init__()
        if fused:
            model.set_attn_processor(FusedAttention())
        self._rewritten = rewritten
        self.dtype = model.dtype
        self.model = MotionUNet(model) if rewritten else model

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the noise."""
        latents, text = convert(sample, self.dtype), convert(encoder_hidden_states, self.dtype)
        if self._rewritten:
            return to_float(self.model(latents, timestep, text))
        # diffusers' pipeline gives the prompt's states once for each frame.
        text = text.repeat_interleave(sample.shape[2], dim=0)
        return to_float(self.model(latents, timestep, text, return_dict=False)[0])


class FrameEncoder(torch.nn.Module):  # type: ignore[misc]
    """`video[batch, 3, 1, H, W] in -1..1 -> moments[batch, 2 * channels, 1, h, w]`: means, then log variances."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> Tensor:
        """Encode one frame of each video."""
        distribution = self.model.encode(video.squeeze(2)).latent_dist
        return torch.cat([distribution.mean, distribution.logvar], dim=1).unsqueeze(2)


class FrameDecoder(torch.nn.Module):  # type: ignore[misc]
    """`latent[batch, channels, 1, h, w] -> video[batch, 3, 1, H, W] in -1..1`. The latent is already unscaled."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        """Decode one frame of each video."""
        frames: Tensor = self.model.decode(latent.squeeze(2), return_dict=False)[0]
        return frames.clamp(-1.0, 1.0).unsqueeze(2)
