"""Layers that replace layers of Flux: the same numbers, computed as engines can."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_POSITION = 4096
"""Flux positions with rotary embeddings in the engine: enough for images of 65,536 pixels a side."""


class ExactTimes(torch.nn.Module):  # type: ignore[misc]
    """Flux's embedding of timestep, guidance scale and prompt, with the first two in float32.

    The network multiplies them by 1,000 in fp16, whose numbers lie 4 apart there. So they come past it, in `held`.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding
        self.held = _HeldTimes()

    def forward(self, *rounded: Tensor) -> Tensor:
        """Return the embedding [batch, width]; the last argument is that of the prompt."""
        embedded: Tensor = self.embedding(*self.held.times, rounded[-1])
        return embedded


class _HeldTimes:
    """Values on their way past a network, not in a module: the exporter refuses tensors that modules keep."""

    times: Sequence[Tensor] = ()


class RotaryTable(torch.nn.Module):  # type: ignore[misc]
    """Flux's rotary embeddings as a table. Flux computes them in fp64, which few runtimes support."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        axes = len(embedding.axes_dim)
        positions = torch.arange(MAX_POSITION, dtype=torch.float32)
        for axis in range(axes):
            ids = torch.zeros(MAX_POSITION, axes)
            ids[:, axis] = positions
            start = sum(embedding.axes_dim[:axis])
            stop = start + embedding.axes_dim[axis]
            cosines, sines = embedding(ids)
            self.register_buffer(f"cosines_{axis}", cosines[:, start:stop].contiguous())
            self.register_buffer(f"sines_{axis}", sines[:, start:stop].contiguous())
        self._axes = axes

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [positions, size] for integer ids [positions, axes]."""
        rows = ids.long()
        cosines = [getattr(self, f"cosines_{axis}")[rows[:, axis]] for axis in range(self._axes)]
        sines = [getattr(self, f"sines_{axis}")[rows[:, axis]] for axis in range(self._axes)]
        return torch.cat(cosines, dim=-1), torch.cat(sines, dim=-1)
