"""Tensors as bytes: packing the inputs of requests, and reading the outputs of responses.

The format is the binary one of the KServe protocol (https://github.com/kserve/open-inference-protocol).
"""

import struct
from dataclasses import dataclass
from typing import Any

from gateway.errors import ModelFailed


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input. `data` is its content, little-endian; each BYTES element has a 4-byte length before it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def string_tensor(name: str, *values: str) -> Tensor:
    """Return BYTES[len(values)], the values in UTF-8."""
    return bytes_tensor(name, *(value.encode() for value in values))


def bytes_tensor(name: str, *values: bytes) -> Tensor:
    """Return BYTES[len(values)]."""
    parts = (part for value in values for part in (struct.pack("<I", len(value)), value))  # copies each value once
    return Tensor(name, "BYTES", (len(values),), b"".join(parts))


def bool_tensor(name: str, value: bool) -> Tensor:
    """Return BOOL[1]."""
    return Tensor(name, "BOOL", (1,), b"\x01" if value else b"\x00")


def int32_tensor(name: str, *values: int) -> Tensor:
    """Return INT32[len(values)]."""
    return Tensor(name, "INT32", (len(values),), struct.pack(f"<{len(values)}i", *values))


def uint64_tensor(name: str, value: int) -> Tensor:
    """Return UINT64[1]."""
    return Tensor(name, "UINT64", (1,), struct.pack("<Q", value))


def float32_tensor(name: str, value: float) -> Tensor:
    """Return FP32[1]."""
    return Tensor(name, "FP32", (1,), struct.pack("<f", value))


class InferResponse:
    """One response of a model: its outputs by name, parsed on demand.

    Reading an output raises `ModelFailed` when it has another datatype, and `ModelFailed` or `struct.error` when its
    data are cut off. `gateway.signatures.coalescing` turns either into a failure of the model.
    """

    __slots__ = ("_message", "_outputs")

    def __init__(self, message: Any) -> None:
        """`message` is a `ModelInferResponse`. Raises `ModelFailed` when an output lacks its data."""
        self._message = message
        self._outputs: dict[str, tuple[str, bytes]]
        raw = message.raw_output_contents
        try:
            self._outputs = {o.name: (o.datatype, data) for o, data in zip(message.outputs, raw, strict=True)}
        except ValueError:
            raise ModelFailed("The model's response has outputs without data.") from None

    def __contains__(self, name: str) -> bool:
        return name in self._outputs

    def strings(self, name: str) -> list[str]:
        """Return the elements of a BYTES output, decoded from UTF-8; none if the response lacks the output."""
        return [value.decode(errors="replace") for value in self.bytes_values(name)]

    def bytes_values(self, name: str) -> list[bytes]:
        """Return the elements of a BYTES output; none if the response lacks the output."""
        raw = self._raw(name, "BYTES")
        values, at = [], 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            values.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        if at != len(raw):
            raise ModelFailed(f"The data of the model's output '{name}' is truncated.")
        return values

    def rows(self, name: str) -> tuple[bytes, ...]:
        """Return the rows of a two-dimensional FP32 output as bytes; none if the response lacks the output."""
        if name not in self._outputs:
            return ()
        raw = self._raw(name, "FP32")
        (shape,) = (list(output.shape) for output in self._message.outputs if output.name == name)
        if len(shape) != 2 or min(shape) < 0 or len(raw) != 4 * shape[0] * shape[1]:
            raise ModelFailed(f"The data of the model's output '{name}' does not match its shape.")
        count, size = shape[0], 4 * shape[1]
        return tuple(raw[i * size : (i + 1) * size] for i in range(count))

    def int16_bytes(self, name: str) -> bytes:
        """Return the data of an INT16 output, little-endian; none if the response lacks the output."""
        return self._raw(name, "INT16")

    def float32_bytes(self, name: str) -> bytes:
        """Return the data of an FP32 output, little-endian; none if the response lacks the output."""
        return self._raw(name, "FP32")

    def int32s(self, name: str) -> tuple[int, ...]:
        """Return the elements of an INT32 output; none if the response lacks the output."""
        raw = self._raw(name, "INT32")
        return struct.unpack(f"<{len(raw) // 4}i", raw)

    def uint32s(self, name: str) -> tuple[int, ...]:
        """Return the elements of a UINT32 output; none if the response lacks the output."""
        raw = self._raw(name, "UINT32")
        return struct.unpack(f"<{len(raw) // 4}I", raw)

    def uint64s(self, name: str) -> tuple[int, ...]:
        """Return the elements of a UINT64 output; none if the response lacks the output."""
        raw = self._raw(name, "UINT64")
        return struct.unpack(f"<{len(raw) // 8}Q", raw)

    def float32s(self, name: str) -> tuple[float, ...]:
        """Return the elements of an FP32 output; none if the response lacks the output."""
        raw = self._raw(name, "FP32")
        return struct.unpack(f"<{len(raw) // 4}f", raw)

    def _raw(self, name: str, datatype: str) -> bytes:
        found = self._outputs.get(name)
        if found is None:
            return b""
        reported, raw = found
        if reported != datatype:
            raise ModelFailed(f"The model's output '{name}' has the datatype {reported[:32]}; expected {datatype}.")
        return raw
