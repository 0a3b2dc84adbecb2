"""The models that compute, as the pipeline sees them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]


class Components(Protocol):
    """Calls components by name; several threads may call at the same time."""

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str]) -> dict[str, Array]:
        """Compute some outputs of a component. The first dimension of everything is the batch.

        Raises `EngineFailed` with a sentence that names the component.
        """


def run_in_batches(
    components: Components, name: str, inputs: Arrays, outputs: Sequence[str], most: int
) -> dict[str, Array]:
    """`Components.run` for batches that may be larger than what a component takes at once."""
    size = len(next(iter(inputs.values())))
    if size <= most:
        return components.run(name, inputs, outputs)
    parts = [
        components.run(name, {key: value[start : start + most] for key, value in inputs.items()}, outputs)
        for start in range(0, size, most)
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in outputs}
