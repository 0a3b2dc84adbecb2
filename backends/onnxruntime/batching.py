"""Batching of the requests that Triton passes in one call."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from backends.serving.execution_providers import Config

TensorMap = Mapping[str, npt.NDArray[np.generic]]
RunFunction = Callable[[Collection[str], TensorMap], dict[str, npt.NDArray[np.generic]]]
"""Takes the names of the wanted outputs and all inputs, and returns the outputs by name."""


class BatchRunner:
    """Runs requests; if the model has a batch dimension, requests whose inputs have equal shapes run as one batch."""

    def __init__(self, run: RunFunction, *, batched: bool) -> None:
        self._run = run
        self._batched = batched

    def run_all(self, requests: Sequence[tuple[Collection[str], TensorMap]]) -> list[TensorMap | Exception]:
        """Return the outputs of each request, or the exception that it raised.

        A request is the names of its wanted outputs and its inputs.
        """
        results: dict[int, TensorMap | Exception] = {}
        for numbers in self._groups([inputs for _, inputs in requests]):
            group = [requests[number] for number in numbers]
            try:
                results |= zip(numbers, self._run_batch(group), strict=True)
            except Exception as error:
                # One request may have failed the whole batch, so each runs again alone.
                singles = [self._run_single(request) for request in group] if len(group) > 1 else [error]
                results |= zip(numbers, singles, strict=True)
        return [results[number] for number in range(len(requests))]

    def _groups(self, requests: Sequence[TensorMap]) -> list[list[int]]:
        if not self._batched:
            return [[number] for number in range(len(requests))]
        groups: dict[object, list[int]] = {}
        for number, inputs in enumerate(requests):
            signature = tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()))
            groups.setdefault(signature, []).append(number)
        return list(groups.values())

    def _run_batch(self, group: Sequence[tuple[Collection[str], TensorMap]]) -> list[TensorMap]:
        wanted = {name for names, _ in group for name in names}
        if not self._batched or len(group) == 1:
            outputs = self._run(wanted, group[0][1])
            self._check(outputs, self._batch_size(group[0][1]))
            return [outputs]
        sizes = [self._batch_size(inputs) for _, inputs in group]
        inputs = {name: np.concatenate([inputs[name] for _, inputs in group]) for name in group[0][1]}
        outputs = self._run(wanted, inputs)
        self._check(outputs, sum(sizes))
        cuts = np.cumsum(sizes)[:-1]
        parts = {name: np.split(array, cuts) for name, array in outputs.items()}
        return [{name: parts[name][place] for name in names} for place, (names, _) in enumerate(group)]

    def _run_single(self, request: tuple[Collection[str], TensorMap]) -> TensorMap | Exception:
        try:
            return self._run_batch([request])[0]
        except Exception as error:
            return error

    def _batch_size(self, inputs: TensorMap) -> int:
        return len(next(iter(inputs.values()))) if self._batched and inputs else 0

    def _check(self, outputs: TensorMap, rows: int) -> None:
        for name, array in outputs.items():
            if self._batched and (not array.ndim or len(array) != rows):
                shape = list(array.shape)
                raise ValueError(f"The output {name} has the shape {shape} for a batch of {rows}: it has no batch.")


def has_batch_dimension(config: Config) -> bool:
    """Return whether the model's tensors have a leading batch dimension, which the declared `dims` omit."""
    return int(config.get("max_batch_size", 0)) > 0
