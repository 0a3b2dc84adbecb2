"""The encoder's output for the decoder's cross-attention: one slot for each window that is being decoded."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from backends.transcription.model_config import ModelConfig

Views = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Keys [n, heads, head size, positions] and values [n, heads, positions, head size] of one layer."""


class CrossCache:
    """Memory for the keys and values of `num_slots` windows of one length.

    A slot of the base model takes 37 MB. Its pages exist from the first write on, so slots that are never used take no
    memory; all of it returns to the system with this object.
    """

    def __init__(self, config: ModelConfig, num_slots: int, positions: int) -> None:
        self.positions = positions
        heads, size = config.num_heads, config.head_size
        self._layers: list[Views] = [
            (
                np.empty((num_slots, heads, size, positions), np.float32),
                np.empty((num_slots, heads, positions, size), np.float32),
            )
            for _ in range(config.num_layers)
        ]

    def views(self, first: int, count: int) -> Iterator[Views]:
        """Yield the keys and values of `count` slots from `first` on, layer by layer. They share this memory."""
        for keys, values in self._layers:
            yield keys[first : first + count], values[first : first + count]

    def copy(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        for keys, values in self._layers:
            keys[target] = keys[source]
            values[target] = values[source]
