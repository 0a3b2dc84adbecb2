"""The interface to the component models of a pipeline."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]


class Components(Protocol):
    """Calls components by name. Several threads may call it at the same time."""

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str]) -> dict[str, Array]:
        """Return the named outputs of a component. The first dimension of every input and output is the batch.

        Raises `EngineFailed` with a sentence that names the component.
        """


def run_in_batches(
    components: Components, name: str, inputs: Arrays, outputs: Sequence[str], max_batch: int
) -> dict[str, Array]:
    """Call `Components.run` with at most `max_batch` rows at a time, and concatenate the outputs."""
    size = len(next(iter(inputs.values())))
    if size <= max_batch:
        return components.run(name, inputs, outputs)
    parts = [
        components.run(name, {key: value[start : start + max_batch] for key, value in inputs.items()}, outputs)
        for start in range(0, size, max_batch)
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in outputs}
