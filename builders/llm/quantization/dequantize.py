"""Dequantise the matrices of a checkpoint that ModelOpt wrote with `export_hf_checkpoint`.

Beside `….weight` lie `….weight_scale`, for 4-bit floats also `….weight_scale_2`, and `….pre_quant_scale` if the layer
multiplies its input by it. Matrices are [outputs, inputs].
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from builders.errors import VerificationFailed
from builders.llm.quantization.tensors import FloatArray, StoredTensor

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The number that each 4-bit float is: sign, 2 bits of exponent, 1 of mantissa."""


def stored_format(tensors: Mapping[str, StoredTensor], name: str) -> str | None:
    """Return the format of the matrix `name`: fp8, nvfp4, int4 or int8; None if it is not quantised."""
    dtype = tensors[name].dtype
    if dtype == "U8":
        scale = tensors.get(f"{name}_scale")
        return "nvfp4" if scale is not None and scale.dtype == "F8_E4M3" else "int4"
    return {"F8_E4M3": "fp8", "I8": "int8"}.get(dtype)


def dequantized(tensors: Mapping[str, StoredTensor], name: str) -> FloatArray:
    """Return the matrix `name`, float32[outputs, inputs], as the layer multiplies its quantised input by it.

    Raises VerificationFailed if its scales are missing, have the wrong shape, or are not finite and positive.
    """
    form = stored_format(tensors, name)
    if form is None:
        return tensors[name].read()
    scale = _scale(tensors, name, "_scale")
    weight = tensors[name]
    try:
        if form == "fp8":
            return weight.read() * _by_row(scale)
        if form == "int8":
            return weight.read() * _by_row(scale)
        if form == "int4":
            return int4_values(weight.read_bytes()) * _by_block(scale, weight.shape[1])
        return (
            fp4_values(weight.read_bytes()) * _by_block(scale, 2 * weight.shape[1]) * _scale(tensors, name, "_scale_2")
        )
    except ValueError as error:
        raise VerificationFailed(f"The scales of {name} have the shape {scale.shape}: {error}.") from error


def int4_values(packed: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the numbers -8 to 7 of bytes [outputs / 2, inputs], each with two rows: the lower half first."""
    rows = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1, packed.shape[1]).astype(np.int8)
    return np.where(rows > 7, rows - 16, rows).astype(np.float32)


def fp4_values(packed: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the 4-bit floats of bytes [outputs, inputs / 2], each with two columns: the lower half first."""
    values: FloatArray = E2M1[np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)]
    return values


def _scale(tensors: Mapping[str, StoredTensor], name: str, suffix: str) -> FloatArray:
    if f"{name}{suffix}" not in tensors:
        raise VerificationFailed(f"{name} is quantized, and has no {name.rpartition('.')[2]}{suffix}.")
    scale = tensors[f"{name}{suffix}"].read()
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise VerificationFailed(f"{name}{suffix} has scales that are not finite and above zero.")
    return scale


def _by_row(scale: FloatArray) -> FloatArray:
    """Return a scale of the whole matrix, or one of each row, in a shape that multiplies a matrix."""
    return scale.reshape(()) if scale.size == 1 else scale.reshape(-1, 1)


def _by_block(scale: FloatArray, inputs: int) -> FloatArray:
    """Return the scales [outputs, blocks] of blocks of a row, repeated for each of its `inputs`."""
    rows = scale.reshape(scale.shape[0], -1)
    if inputs % rows.shape[1]:
        raise ValueError(f"{inputs} inputs are no whole number of blocks")
    return np.repeat(rows, inputs // rows.shape[1], axis=1)
