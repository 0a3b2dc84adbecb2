"""Compare the engine of one part with its source network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.diffusion.library_logging import silence_libraries
from builders.diffusion.parts import PipelinePart, example_inputs, network_arguments
from builders.diffusion.reference_pipeline import open_session
from builders.errors import VerificationFailed
from builders.recipe import Precision

MAX_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2}
"""Largest allowed difference of one output number of a part, relative to its source's largest number."""

TEST_SHAPES = (
    (1, {"height": 2, "width": 2, "tokens": 8, "patches": 4, "frames": 2}),
    (3, {"height": 2, "width": 3, "tokens": 8, "patches": 6, "frames": 3}),
    (2, {"height": 5, "width": 1, "tokens": 21, "patches": 35, "frames": 1}),
)
"""Batches and sizes of the comparison, all different from the exported ones; heights and widths in multiples of
`PipelinePart.size_unit`."""

MIN_LATENT_CELLS = 4
"""Replaces a `size_unit` of 1 for those sizes: a VAE decoder's input of a single cell would test little."""


@dataclass(frozen=True, slots=True)
class PartMetrics:
    """Distance of an engine from its source network."""

    difference: float
    """Largest difference of one number, relative to the largest number of the source's output."""
    largest: float
    """The largest number of the source's outputs."""
    runs: int
    fp16_difference: float | None = None
    """The same difference of the source network in fp16 arithmetic; None if the engine is not in fp16."""


def compare_part(
    part: PipelinePart, load: Callable[[bool], Any], model: Path, precision: Precision = "fp32"
) -> PartMetrics:
    """Compare one engine with its source network in fp32, on the CPU. `load` returns that, or with True its fp16.

    onnxruntime's CPU provider computes most of an fp16 graph in fp32, with the weights in fp16. So PyTorch runs the
    network in fp16, too. Raises VerificationFailed with the figures.
    """
    silence_libraries()
    network, difference, largest = load(False), 0.0, 0.0
    half_difference = _half_difference(part, load(True), network) if precision == "fp16" else None
    try:
        engine = open_session(model)
        names = [port.name for port in part.outputs]
        for seed, (batch, sizes) in enumerate(TEST_SHAPES):
            inputs = example_inputs(part, batch, _scaled(part, sizes), seed=seed + 1)
            theirs = _run_network(network, inputs)
            for source, ours in zip(theirs, engine.run(names, inputs), strict=True):
                if ours.shape != source.shape:
                    raise VerificationFailed(f"{part.name} gives {ours.shape} where its source gives {source.shape}.")
                difference = max(difference, relative_difference(ours, source))
                largest = max(largest, float(np.abs(source).max()))
    except VerificationFailed:
        raise
    except Exception as error:  # onnxruntime has a class of its own for each status, with no common base
        raise VerificationFailed(
            f"onnxruntime cannot run the exported {part.name}, so nothing was installed: {error}"
        ) from error
    worst = max(difference, half_difference or 0.0)
    if not worst <= MAX_DIFFERENCE[precision]:
        raise VerificationFailed(
            f"The {part.name} does not answer as its source does, so nothing was installed. Largest difference "
            f"{worst:.3g} of the largest number (at most {MAX_DIFFERENCE[precision]:g}), over {len(TEST_SHAPES)} "
            "batches."
        )
    return PartMetrics(difference, largest, len(TEST_SHAPES), half_difference)


def _half_difference(part: PipelinePart, half: Any, network: Any) -> float:
    """Return the largest difference between the source network in fp16 arithmetic and `network`, which is in fp32."""
    differences = [0.0]
    for seed, (batch, sizes) in enumerate(TEST_SHAPES):
        inputs = example_inputs(part, batch, _scaled(part, sizes), seed=seed + 1)
        try:
            ours = _run_network(half, inputs)
        except RuntimeError as error:  # such as an operator that PyTorch does not have in fp16 for CPUs
            raise VerificationFailed(
                f"PyTorch cannot run the {part.name} in fp16, so nothing was installed: {error}"
            ) from error
        pairs = zip(ours, _run_network(network, inputs), strict=True)
        differences += [relative_difference(*pair) for pair in pairs]
    return max(differences)


def _run_network(network: Any, inputs: Mapping[str, Any]) -> list[Any]:
    """Run a network of PyTorch; return its outputs as numpy arrays."""
    import torch

    with torch.inference_mode():
        output = network(**network_arguments({name: torch.from_numpy(value) for name, value in inputs.items()}))
    return [tensor.numpy() for tensor in (output if isinstance(output, tuple) else (output,))]


def _scaled(part: PipelinePart, sizes: Mapping[str, int]) -> dict[str, int]:
    unit = MIN_LATENT_CELLS if part.size_unit == 1 else 1
    return {name: size * unit if name in ("height", "width") else size for name, size in sizes.items()}


def relative_difference(ours: Any, source: Any) -> float:
    """Return the largest difference, relative to the largest number of `source`."""
    return largest_difference(ours, source) / max(float(np.abs(source).max()), 1e-6)


def largest_difference(ours: Any, theirs: Any) -> float:
    """Return the largest absolute difference; infinity if any difference is not finite."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return float(differences.max()) if np.isfinite(differences).all() else float("inf")
