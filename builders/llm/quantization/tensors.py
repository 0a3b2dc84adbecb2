"""Read the tensors of safetensors files with numpy, those in BF16 and in FP8 (E4M3) too, which numpy has no types for.

The format: https://github.com/huggingface/safetensors#format
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import SourceUnavailable

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a safetensors file."""

    path: Path
    dtype: str
    """As the format names it: F32, F16, BF16, F8_E4M3, I8, U8 and so on."""
    shape: tuple[int, ...]
    start: int
    """Position of the first byte in the file."""
    size: int
    """Bytes."""

    def read(self) -> FloatArray:
        """Return the numbers, of packed tensors the bytes, as float32[shape]. Raises SourceUnavailable."""
        raw = np.fromfile(self.path, np.uint8, self.size, offset=self.start)
        if raw.size != self.size:
            raise SourceUnavailable(f"{self.path} is cut off.")
        return decode(raw, self.dtype).reshape(self.shape)

    def read_bytes(self) -> npt.NDArray[np.uint8]:
        """Return the tensor's own bytes, uint8[shape], of a tensor with one byte a number."""
        return np.fromfile(self.path, np.uint8, self.size, offset=self.start).reshape(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors in the safetensors files of a folder, by name. Raises SourceUnavailable."""
    found: dict[str, StoredTensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header: dict[str, Any] = json.loads(file.read(length))
        except (OSError, ValueError, struct.error) as error:
            raise SourceUnavailable(f"{path} is not a readable safetensors file: {error}") from error
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                found[name] = StoredTensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
    return found


def decode(raw: npt.NDArray[np.uint8], dtype: str) -> FloatArray:
    """Return the numbers of a flat tensor's bytes. Raises SourceUnavailable for a type that checkpoints do not have."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        values: FloatArray = E4M3[raw]
        return values
    plain = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "<i1", "U8": "<u1"}
    if dtype not in plain:
        raise SourceUnavailable(f"Tensors of the type {dtype} cannot be compared.")
    return raw.view(plain[dtype]).astype(np.float32)


def _e4m3_values() -> FloatArray:
    """Return the number of each byte: sign, 4 bits of exponent (bias 7), 3 of mantissa; S.1111.111 is not a number."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    size[(codes & 127) == 127] = np.nan
    return np.where(codes & 128, -size, size).astype(np.float32)


E4M3 = _e4m3_values()
"""The number that each byte is in FP8 (E4M3), float32[256]."""
