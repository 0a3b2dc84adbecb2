"""Layers of Wan's transformer that compute what diffusers' do, in a form that engines run faster."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class FrameTimes(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """Embeds a timestep for each latent frame, and repeats the result for the frame's patches.

    diffusers embeds the timestep of each patch, which is the same work once for every patch.
    """

    def __init__(self, embedder: Any) -> None:
        super().__init__()
        self.embedder = embedder
        self.held = SimpleNamespace(patches=1)
        """The patches of a frame, set before each call."""

    def forward(
        self, timestep: Tensor, text: Tensor, image: Tensor | None = None, timestep_seq_len: int | None = None
    ) -> tuple[Any, ...]:
        """Embed `timestep` [batch * frames]; return as diffusers' `WanTimeTextImageEmbedding` does for all patches."""
        times, projected, text, image = self.embedder(timestep, text, image, timestep_seq_len=timestep_seq_len)
        return self._repeat(times), self._repeat(projected), text, image

    def _repeat(self, values: Tensor) -> Tensor:
        batch, frames, width = values.shape
        patches = self.held.patches
        return values.unsqueeze(2).expand(batch, frames, patches, width).reshape(batch, frames * patches, width)


def rewrite_attention(model: Any, *, fused: bool) -> None:
    """Give a `WanTransformer3DModel` the attention of this module, and reorder the weights that it needs reordered."""
    model.rope = _HalfRotary(model.rope)
    for block in model.blocks:
        _split_pairs(block.attn1)
        for attention in (block.attn1, block.attn2):
            attention.set_processor(_Attention(fused=fused))


def _split_pairs(attention: Any) -> None:
    """Reorder queries and keys so that the two numbers of each rotated pair lie half a head apart.

    diffusers rotates neighbours. Halves are contiguous in memory, and the products of queries and keys stay the same.
    """
    heads = attention.heads
    width = attention.to_q.out_features // heads
    inside = torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])
    order = (torch.arange(heads)[:, None] * width + inside[None, :]).flatten()
    for module in (attention.to_q, attention.to_k, attention.norm_q, attention.norm_k):
        for name in ("weight", "bias"):
            values = getattr(module, name, None)
            if values is not None:
                values.data = values.data[order]


class _HalfRotary(torch.nn.Module):  # type: ignore[misc]
    """Returns cosines and sines [1, patches, 1, head / 2], one for each rotated pair."""

    def __init__(self, rope: Any) -> None:
        super().__init__()
        self.rope = rope

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = self.rope(hidden_states)
        return cosines[..., 0::2], sines[..., 1::2]


class _Attention:
    """An attention processor of diffusers for `WanAttention`."""

    # diffusers reads and sets these of its own processors.
    _attention_backend = None
    _parallel_config = None

    def __init__(self, *, fused: bool) -> None:
        self._fused = fused

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        text, image = encoder_hidden_states, None
        if attn.add_k_proj is not None and text is not None:
            pictures = text.shape[1] - 512  # the number of text tokens that diffusers' own processor assumes
            image, text = text[:, :pictures], text[:, pictures:]
        attended = hidden_states if text is None else text
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(attended))
        if rotary_emb is not None:
            query, key = _rotate(query, attn.heads, *rotary_emb), _rotate(key, attn.heads, *rotary_emb)
        mixed = self._mix(query, key, attn.to_v(attended), attn.heads)
        if image is not None:
            key_of_image = attn.norm_added_k(attn.add_k_proj(image))
            mixed = mixed + self._mix(query, key_of_image, attn.add_v_proj(image), attn.heads)
        projected: Tensor = attn.to_out[0](mixed)
        return projected

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Attend: [batch, tokens, width] each, with `heads` heads in the width."""
        if self._fused:
            mixed: Tensor = torch.onnx.ops.symbolic(
                "com.microsoft::MultiHeadAttention",
                [query, key, value],
                attrs={"num_heads": heads},
                dtype=query.dtype,
                shape=tuple(query.shape),
                version=1,
            )
            return mixed
        parted = (tensor.unflatten(2, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*parted).transpose(1, 2).flatten(2)


def _rotate(states: Tensor, heads: int, cosines: Tensor, sines: Tensor) -> Tensor:
    one, other = states.unflatten(2, (heads, -1)).chunk(2, dim=-1)
    turned = torch.cat([one * cosines - other * sines, one * sines + other * cosines], dim=-1)
    return turned.flatten(2).type_as(states)
