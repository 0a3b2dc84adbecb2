"""A sentence-transformers model as one PyTorch network: token ids in, one embedding per text out.

Most architectures of transformers look up their attention in a table of functions. `fused_attention` is registered
there. It exports as one `MultiHeadAttention` node of onnxruntime instead of a dozen nodes, and takes the length of each
text instead of a padding mask. Architectures with an attention of their own are exported as they are, and so is every
network for TensorRT, which does not know the node.

In fp16 the transformer alone computes in it; pooling, dense layers and normalisation stay in float32.
"""

from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, masking_utils
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.embedding.sentence_model import SentenceModel

ATTENTION_NAME = "tritonic"
"""Name of `fused_attention` in the tables of transformers."""

_UNSUPPORTED_ATTENTION_ARGUMENTS = ("position_bias", "s_aux", "softcap", "head_mask", "cache_kwargs")
"""Arguments of some architectures' attention that `MultiHeadAttention` does not support."""

traced_lengths: Tensor | None = None
"""int32[texts]: lengths of the texts being traced, passed to `fused_attention`, whose signature has no room for it."""


class UnsupportedAttention(Exception):
    """`MultiHeadAttention` cannot compute the attention of this architecture."""


def fused_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Compute attention over [batch, heads, tokens, size] with one node of onnxruntime.

    The signature is that of https://huggingface.co/docs/transformers/attention_interface. `mask` is added to the
    scores; None lets each text attend to all of its own tokens. Raises UnsupportedAttention.
    """
    for name in _UNSUPPORTED_ATTENTION_ARGUMENTS:
        if more.get(name) is not None:
            raise UnsupportedAttention(name)
    batch, heads, tokens, size = query.shape
    if key.shape[1] != heads:
        key = key.repeat_interleave(heads // key.shape[1], 1)
        value = value.repeat_interleave(heads // value.shape[1], 1)
    flat = [states.transpose(1, 2).reshape(batch, tokens, -1) for states in (query, key, value)]
    width = flat[2].shape[-1]
    inputs = [*flat, None, traced_lengths] if mask is None else [*flat, None, None, mask]
    mixed = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        inputs,
        attrs={"num_heads": heads, "scale": float(size**-0.5 if scaling is None else scaling)},
        dtype=query.dtype,
        shape=(batch, tokens, width),
        version=1,
    )
    return mixed.reshape(batch, tokens, heads, -1), None


def make_attention_mask(*arguments: Any, **more: Any) -> Tensor | None:
    """Return a mask [batch, 1, tokens, tokens] to add to the scores; None if only padding would be masked."""
    if more.get("mask_function") is masking_utils.bidirectional_mask_function:
        return None
    more |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    made: Tensor = eager_mask(*arguments, **more)
    return made


def load_transformer(model: SentenceModel, implementation: str | None, dtype: torch.dtype = torch.float32) -> Any:
    """Load the transformer. `implementation` names its attention; None is the architecture's default."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, fused_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, make_attention_mask)
    chosen = {} if implementation is None else {"attn_implementation": implementation}
    folder = str(model.transformer.folder)
    transformer = AutoModel.from_pretrained(folder, dtype=dtype, **FROM_PRETRAINED_OPTIONS, **chosen)
    return transformer.eval()


def load_dense_layers(model: SentenceModel) -> list[tuple[Tensor, Tensor | None, str]]:
    """Return the weights [out, in], the bias [out] or None, and the activation of each dense layer."""
    loaded = []
    for linear in model.dense_layers:
        tensors = load_file(linear.folder / "model.safetensors")
        bias = tensors.get("linear.bias")
        loaded.append((tensors["linear.weight"].float(), None if bias is None else bias.float(), linear.activation))
    return loaded


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
}


class SentenceNetwork(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """`(input_ids int64[texts, tokens], counts int32[texts]) -> float32[texts, dimensions]`, padded on the right."""

    def __init__(self, model: SentenceModel, transformer: Any) -> None:
        super().__init__()
        self._model = model
        self._transformer = transformer
        self._types = "token_type_ids" in transformer.forward.__code__.co_varnames
        self._dense_layers = load_dense_layers(model)
        for number, (weight, bias, _) in enumerate(self._dense_layers):
            self.register_buffer(f"weight_{number}", weight)
            self.register_buffer(f"bias_{number}", bias)

    def forward(self, input_ids: Tensor, counts: Tensor) -> Tensor:
        """Return one embedding for each text; `counts` are their lengths in tokens."""
        global traced_lengths
        traced_lengths = counts
        positions = torch.arange(input_ids.shape[1])[None]
        inside = positions < counts[:, None]
        more = {"token_type_ids": torch.zeros_like(input_ids)} if self._types else {}
        states = self._transformer(input_ids=input_ids, attention_mask=inside.long(), **more).last_hidden_state
        if states.dtype != torch.float32:
            states = states.float()
        weights = inside[..., None].to(states.dtype)
        pooled = torch.cat([self._pool(mode, states, weights, counts) for mode in self._model.pooling], 1)
        for number, (_, _, activation) in enumerate(self._dense_layers):
            weight, bias = getattr(self, f"weight_{number}"), getattr(self, f"bias_{number}")
            pooled = ACTIVATIONS[activation](torch.nn.functional.linear(pooled, weight, bias))
        return torch.nn.functional.normalize(pooled, dim=1) if self._model.normalized else pooled

    @staticmethod
    def _pool(mode: str, states: Tensor, inside: Tensor, counts: Tensor) -> Tensor:
        """Pool states [texts, tokens, size] to [texts, size]; `inside` is 1 for tokens and 0 for padding."""
        if mode == "cls":
            return states[:, 0]
        if mode == "max":
            return (states + (1 - inside) * -3e38).amax(1)
        if mode == "lasttoken":
            last = (counts.long() - 1)[:, None, None].expand(-1, 1, states.shape[2])
            return torch.gather(states, 1, last)[:, 0]
        if mode == "weightedmean":
            inside = inside * torch.arange(1, states.shape[1] + 1)[None, :, None].to(states.dtype)
        total, weight = (states * inside).sum(1), inside.sum(1)
        return total / (weight.sqrt() if mode == "mean_sqrt_len_tokens" else weight)
