"""The two networks of a Whisper as PyTorch modules that export to ONNX.

They compute what transformers' `WhisperForConditionalGeneration` computes, with two differences of form. Keys are
stored as [n, heads, head size, positions], ready for the product with a query. Each layer has inputs and outputs of its
own for its cache, so that onnxruntime copies no slices.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from builders.transcription.whisper_model import WhisperModel

SMALLEST_MASK = -3e4
"""Masks are cut off here: -1e9 is infinite in fp16, and a padding row that is all infinite would make NaN."""


class Encoder(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """`mel [n, mels, frames] -> cross_key_0, cross_value_0, cross_key_1, …`, the cache of the cross-attentions.

    `frames` is even and at most twice the model's positions; the outputs have half as many positions.
    """

    def __init__(self, whisper: Any, model: WhisperModel) -> None:
        super().__init__()
        self._encoder = whisper.model.encoder
        self._heads = whisper.config.encoder_attention_heads
        self._cross_attentions = torch.nn.ModuleList(layer.encoder_attn for layer in whisper.model.decoder.layers)
        self._shape = (model.num_heads, model.head_size)

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        """Encode; see the class."""
        encoder = self._encoder
        mel = mel.to(encoder.conv1.weight.dtype)
        hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
        n, positions, _ = hidden.shape
        hidden = hidden + encoder.embed_positions.weight[:positions]
        for layer in encoder.layers:
            hidden = hidden + self._attend(layer.self_attn, layer.self_attn_layer_norm(hidden))
            hidden = hidden + _feed_forward(layer, hidden)
        hidden = encoder.layer_norm(hidden)
        outputs = []
        for attention in self._cross_attentions:
            key = attention.k_proj(hidden).view(n, positions, *self._shape)
            value = attention.v_proj(hidden).view(n, positions, *self._shape)
            outputs += [key.permute(0, 2, 3, 1).float(), value.transpose(1, 2).float()]
        return tuple(outputs)

    def _attend(self, attention: Any, hidden: Tensor) -> Tensor:
        mixed = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            [attention.q_proj(hidden), attention.k_proj(hidden), attention.v_proj(hidden)],
            attrs={"num_heads": self._heads},
            dtype=hidden.dtype,
            shape=tuple(hidden.shape),
            version=1,
        )
        projected: Tensor = attention.out_proj(mixed)
        return projected


class Decoder(torch.nn.Module):  # type: ignore[misc]
    """`(input_ids, positions, mask, past, cross) -> logits, present…, alignment`.

    `logits` [n, t, vocabulary] and `alignment` [n, alignment heads, t, positions] are of all `t` tokens. `present` are
    keys and values of past and new tokens together. The names and shapes of the tensors are those of `onnx_export`.
    """

    def __init__(self, whisper: Any, model: WhisperModel) -> None:
        super().__init__()
        decoder = whisper.model.decoder
        self._decoder = decoder
        self._projection = whisper.proj_out
        self._shape = (model.num_heads, model.head_size)
        self._alignment_heads = model.alignment_heads
        for number, layer in enumerate(decoder.layers):
            weight, bias = _fused_projection(layer.self_attn, model.head_size)
            self.register_buffer(f"qkv_weight_{number}", weight)
            self.register_buffer(f"qkv_bias_{number}", bias)

    def forward(
        self, input_ids: Tensor, positions: Tensor, mask: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Decode; see the class."""
        decoder = self._decoder
        embedded = functional.embedding(input_ids, decoder.embed_tokens.weight)
        hidden = embedded + functional.embedding(positions, decoder.embed_positions.weight)
        dtype = hidden.dtype
        mask = mask.clamp(min=SMALLEST_MASK).to(dtype)
        n, t, width = hidden.shape
        presents: list[Tensor] = []
        weights: dict[tuple[int, int], Tensor] = {}
        for number, layer in enumerate(decoder.layers):
            normal = layer.self_attn_layer_norm(hidden)
            fused = functional.linear(
                normal, getattr(self, f"qkv_weight_{number}"), getattr(self, f"qkv_bias_{number}")
            )
            query, key, value = (part.view(n, t, *self._shape) for part in fused.chunk(3, -1))
            key = torch.cat([past[2 * number].to(dtype), key.permute(0, 2, 3, 1)], 3)
            value = torch.cat([past[2 * number + 1].to(dtype), value.transpose(1, 2)], 2)
            presents += [key.float(), value.float()]
            shares = torch.softmax(query.transpose(1, 2) @ key + mask, -1)
            hidden = hidden + layer.self_attn.out_proj((shares @ value).transpose(1, 2).reshape(n, t, width))

            attention = layer.encoder_attn
            query = attention.q_proj(layer.encoder_attn_layer_norm(hidden)) * attention.scaling
            query = query.view(n, t, *self._shape).transpose(1, 2)
            shares = torch.softmax(query @ cross[2 * number].to(dtype), -1)
            weights |= {place: shares[:, place[1]] for place in self._alignment_heads if place[0] == number}
            mixed = (shares @ cross[2 * number + 1].to(dtype)).transpose(1, 2).reshape(n, t, width)
            hidden = hidden + attention.out_proj(mixed)
            hidden = hidden + _feed_forward(layer, hidden)
        logits = self._projection(decoder.layer_norm(hidden)).float()
        alignment = torch.stack([weights[place] for place in self._alignment_heads], 1).float()
        return (logits, *presents, alignment)


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    fed: Tensor = layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
    return fed


def _fused_projection(attention: Any, head_size: int) -> tuple[Tensor, Tensor]:
    """Return weight [3 * width, width] and bias of query, key and value in one; the query is scaled already."""
    scale = head_size**-0.5
    query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
    weight = torch.cat([query.weight * scale, key.weight, value.weight]).detach()
    bias = torch.cat([query.bias * scale, torch.zeros_like(query.bias), value.bias]).detach()
    return weight, bias
