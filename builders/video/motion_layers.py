"""AnimateDiff's UNet in a form that exports: the same numbers, for every number of videos and frames."""

from typing import Any

import torch
from torch import Tensor


class MotionUNet(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """Runs a `UNetMotionModel` as its own `forward` does.

    That repeats the embedded timestep for each frame by `repeat_interleave`, which is exported wrongly for a number of
    frames that is not fixed: with several videos, frames get the timestep of another video. Here a dimension is
    inserted and expanded.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the noise [batch, channels, frames, h, w].

        `timestep` is [batch], `encoder_hidden_states` is [batch, tokens, width]. `h` and `w` are multiples of the
        UNet's downsampling.
        """
        model = self.model
        batch, _, frames, height, width = sample.shape
        times = model.time_embedding(model.time_proj(timestep).to(model.dtype))
        times, text = repeat_frames(times, frames), repeat_frames(encoder_hidden_states, frames)
        hidden = model.conv_in(sample.permute(0, 2, 1, 3, 4).flatten(0, 1))
        skipped: tuple[Tensor, ...] = (hidden,)
        for block in model.down_blocks:
            hidden, more = block(hidden_states=hidden, temb=times, num_frames=frames, **_text(block, text))
            skipped += more
        if model.mid_block is not None:
            moving = {"num_frames": frames} if hasattr(model.mid_block, "motion_modules") else {}
            hidden = model.mid_block(hidden, times, encoder_hidden_states=text, **moving)
        for block in model.up_blocks:
            count = len(block.resnets)
            skipped, taken = skipped[:-count], skipped[-count:]
            hidden = block(
                hidden_states=hidden,
                temb=times,
                res_hidden_states_tuple=taken,
                num_frames=frames,
                **_text(block, text),
            )
        if model.conv_norm_out:
            hidden = model.conv_act(model.conv_norm_out(hidden))
        noise: Tensor = model.conv_out(hidden)
        return noise.reshape(batch, frames, -1, height, width).permute(0, 2, 1, 3, 4)


def repeat_frames(values: Tensor, frames: int) -> Tensor:
    """Repeat each row of `values` [batch, …] for the frames of its video: [batch * frames, …]."""
    repeated = values.unsqueeze(1).expand(values.shape[0], frames, *values.shape[1:])
    return repeated.reshape(values.shape[0] * frames, *values.shape[1:])


def _text(block: Any, text: Tensor) -> dict[str, Tensor]:
    """Return the states of the prompt as an argument, for a block that attends to them."""
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


class FusedAttention:
    """An attention processor of diffusers for `Attention`, by one operator of onnxruntime.

    Separate products would need memory for all pairs of cells of every frame.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend from `hidden_states` [rows, tokens, width] to themselves, or to `encoder_hidden_states`."""
        attended = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(attended), attn.to_v(attended)
        mixed: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            [query, key, value],
            attrs={"num_heads": attn.heads, "scale": float(attn.scale)},
            dtype=query.dtype,
            shape=tuple(query.shape),
            version=1,
        )
        projected: Tensor = attn.to_out[0](mixed)
        return projected / attn.rescale_output_factor
