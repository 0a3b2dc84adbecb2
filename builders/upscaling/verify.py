"""Compare an upscaling engine with its source: the network in PyTorch in fp32, or the ONNX file that it was."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import VerificationFailed
from builders.progress import Progress
from builders.recipe import Precision
from builders.upscaling.onnx_export import INPUT, OUTPUT, open_session

Images = npt.NDArray[np.float32]
Upscale = Callable[[Images], Images]
"""Upscales float32[n, 3, height, width], 0 to 1."""

MAX_DIFFERENCE: dict[Precision, float] = {"fp32": 2e-3, "fp16": 3e-2}
"""Largest allowed difference of a colour, of 1: half a step of 8 bits for fp32."""
SHAPES = ((1, 3, 24, 40), (2, 3, 33, 17), (1, 3, 1, 1))


@dataclass(frozen=True, slots=True)
class UpscalingMetrics:
    """The distance of an engine from its source."""

    scales: tuple[int, ...]
    difference_max: float
    """Largest difference of a colour, of 1."""
    difference_mean: float
    pictures: int


def verify(
    engine: Path, theirs: Upscale, scale: int, scales: list[int], precision: Precision, progress: Progress
) -> UpscalingMetrics:
    """Upscale pictures of waves and noise with both. Raises VerificationFailed with the figures."""
    session = open_session(engine)
    largest, means = 0.0, []
    for number, shape in enumerate(SHAPES):
        progress.update(f"upscaling {shape[3]} x {shape[2]} pixels", number / len(SHAPES))
        pictures = _pictures(shape, number)
        made = session.run([OUTPUT], {INPUT: pictures})[0]
        expected = theirs(pictures)
        wanted = (shape[0], 3, shape[2] * scale, shape[3] * scale)
        if made.shape != wanted or not np.isfinite(made).all():
            raise VerificationFailed(f"The engine makes {made.shape} of {shape}, and not finite numbers of {wanted}.")
        difference = np.abs(made - expected)
        largest = max(largest, float(difference.max()))
        means.append(float(difference.mean()))
    figures = UpscalingMetrics(tuple(scales), largest, float(np.mean(means)), len(SHAPES))
    if not largest <= MAX_DIFFERENCE[precision]:
        raise VerificationFailed(
            f"The engine does not upscale as its source does, so nothing was installed: a colour is {largest:.3g} of 1 "
            f"away (at most {MAX_DIFFERENCE[precision]:g})."
        )
    return figures


def torch_reference(weights_file: Path) -> Upscale:
    """Return the network of a file of weights, in PyTorch and in fp32."""
    import torch

    from builders.upscaling import weights
    from builders.upscaling.architectures import recognize
    from builders.upscaling.networks import load

    checkpoint = weights.read(weights_file)
    network = load(recognize({name: tuple(tensor.shape) for name, tensor in checkpoint.items()}), checkpoint)

    def upscale(pictures: Images) -> Images:
        with torch.inference_mode():
            made: Images = network(torch.from_numpy(pictures)).numpy()
        return made

    return upscale


def onnx_reference(path: Path) -> Upscale:
    """Return the network of an ONNX file, whatever its tensors are called."""
    session: Any = open_session(path)
    name = session.get_inputs()[0].name

    def upscale(pictures: Images) -> Images:
        made: Images = session.run(None, {name: pictures})[0]
        return made

    return upscale


def _pictures(shape: tuple[int, ...], seed: int) -> Images:
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[2], : shape[3]].astype(np.float32)
    waves = np.sin(rows / 3) * np.cos(columns / 5) / 2 + 0.5
    noise = generator.random(shape, np.float32)
    pictures: Images = np.clip(0.7 * waves + 0.3 * noise, 0, 1).astype(np.float32)
    return pictures
