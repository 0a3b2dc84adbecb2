"""Write checkpoints as ModelOpt stores them: matrices of known numbers in each of its formats."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.llm.quantization.dequantize import E2M1
from builders.llm.quantization.tensors import E4M3

Array = npt.NDArray[np.float32]
Tensors = dict[str, tuple[str, npt.NDArray[np.generic]]]
"""Type, as safetensors names it, and content of each tensor."""


def write_safetensors(folder: Path, tensors: Tensors) -> None:
    """Write `model.safetensors`. The content is written byte for byte, whatever its numpy type."""
    folder.mkdir(parents=True, exist_ok=True)
    header, data = {}, b""
    for name, (dtype, values) in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)


def to_bf16(values: Array) -> npt.NDArray[np.uint16]:
    """Round to BF16, half to even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_e4m3(values: Array) -> npt.NDArray[np.uint8]:
    """Return the code of the nearest number in FP8."""
    positive = E4M3[:127]
    right = np.clip(np.searchsorted(positive, np.abs(values)), 1, 126)
    codes = np.where(np.abs(values) - positive[right - 1] < positive[right] - np.abs(values), right - 1, right)
    return (codes + np.where(values < 0, 128, 0)).astype(np.uint8)


def fp8(name: str, weight: Array) -> Tensors:
    """One scale for the matrix."""
    scale = np.float32(np.abs(weight).max() / 448)
    return {name: ("F8_E4M3", to_e4m3(weight / scale)), f"{name}_scale": ("F32", np.array(scale, np.float32))}


def int8(name: str, weight: Array) -> Tensors:
    """One scale for each row."""
    scale = (np.abs(weight).max(1) / 127).astype(np.float32)
    codes = np.clip(np.round(weight / scale[:, None]), -128, 127).astype(np.int8)
    return {name: ("I8", codes), f"{name}_scale": ("F32", scale)}


def int4(name: str, weight: Array, block: int = 128) -> Tensors:
    """One scale for each group of a row; a byte holds two rows."""
    rows, columns = weight.shape
    scale = (np.abs(weight.reshape(rows, -1, block)).max(-1) / 7).astype(np.float32)
    codes = np.clip(np.round(weight / np.repeat(scale, block, 1)), -8, 7).astype(np.int8).astype(np.uint8) & 15
    pairs = codes.reshape(rows // 2, 2, columns)
    return {name: ("U8", pairs[:, 0] | (pairs[:, 1] << 4)), f"{name}_scale": ("F32", scale)}


def nvfp4(name: str, weight: Array, block: int = 16) -> Tensors:
    """One FP8 scale for each block of a row, and one for the matrix; a byte holds two columns."""
    rows = len(weight)
    whole = np.float32(np.abs(weight).max() / (6 * 448))
    scale = to_e4m3((np.abs(weight.reshape(rows, -1, block)).max(-1) / (6 * whole)).astype(np.float32))
    numbers = weight / (np.repeat(E4M3[scale], block, 1) * whole)
    nearest = np.abs(np.abs(numbers)[..., None] - E2M1[:8]).argmin(-1)
    codes = (nearest + np.where(numbers < 0, 8, 0)).astype(np.uint8)
    return {
        name: ("U8", codes[:, 0::2] | (codes[:, 1::2] << 4)),
        f"{name}_scale": ("F8_E4M3", scale),
        f"{name}_scale_2": ("F32", np.array(whole, np.float32)),
    }
