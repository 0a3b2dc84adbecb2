"""Tensors as bytes: how what is asked is packed, and what is answered is read.

Knows the KServe protocol's binary form (https://github.com/kserve/open-inference-protocol), and no server.
"""

import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input: `data` is its little-endian content, BYTES elements each with a 4-byte length before them."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def text(name: str, *values: str) -> Tensor:
    """BYTES[len(values)]."""
    return blobs(name, *(value.encode() for value in values))


def blobs(name: str, *values: bytes) -> Tensor:
    """BYTES[len(values)]."""
    parts = (part for value in values for part in (struct.pack("<I", len(value)), value))  # each is copied once
    return Tensor(name, "BYTES", (len(values),), b"".join(parts))


def boolean(name: str, value: bool) -> Tensor:
    """BOOL[1]."""
    return Tensor(name, "BOOL", (1,), b"\x01" if value else b"\x00")


def int32(name: str, *values: int) -> Tensor:
    """INT32[len(values)]."""
    return Tensor(name, "INT32", (len(values),), struct.pack(f"<{len(values)}i", *values))


def uint64(name: str, value: int) -> Tensor:
    """UINT64[1]."""
    return Tensor(name, "UINT64", (1,), struct.pack("<Q", value))


def float32(name: str, value: float) -> Tensor:
    """FP32[1]."""
    return Tensor(name, "FP32", (1,), struct.pack("<f", value))


class Response:
    """One response of a model: its outputs by name, read on demand."""

    __slots__ = ("_message", "_outputs")

    def __init__(self, message: Any) -> None:
        """`message` is a `ModelInferResponse`."""
        self._message = message
        self._outputs = {o.name: raw for o, raw in zip(message.outputs, message.raw_output_contents, strict=True)}

    def __contains__(self, name: str) -> bool:
        return name in self._outputs

    def texts(self, name: str) -> list[str]:
        """Elements of a BYTES output; empty where the response does not carry it."""
        return [value.decode(errors="replace") for value in self.blobs(name)]

    def blobs(self, name: str) -> list[bytes]:
        """The same, as they are."""
        raw = self._outputs.get(name, b"")
        values, at = [], 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            values.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        return values

    def rows(self, name: str) -> tuple[bytes, ...]:
        """The rows of a two-dimensional output of fixed-size elements, each as its bytes."""
        raw = self._outputs[name]
        (count, _), *_ = (output.shape for output in self._message.outputs if output.name == name)
        size = len(raw) // max(count, 1)
        return tuple(raw[i * size : (i + 1) * size] for i in range(count))

    def int32s(self, name: str) -> tuple[int, ...]:
        """Elements of an INT32 output; empty where the response does not carry it."""
        raw = self._outputs.get(name, b"")
        return struct.unpack(f"<{len(raw) // 4}i", raw)

    def uint32s(self, name: str) -> tuple[int, ...]:
        """Elements of a UINT32 output; empty where the response does not carry it."""
        raw = self._outputs.get(name, b"")
        return struct.unpack(f"<{len(raw) // 4}I", raw)

    def uint64s(self, name: str) -> tuple[int, ...]:
        """Elements of a UINT64 output; empty where the response does not carry it."""
        raw = self._outputs.get(name, b"")
        return struct.unpack(f"<{len(raw) // 8}Q", raw)

    def float32s(self, name: str) -> tuple[float, ...]:
        """Elements of an FP32 output; empty where the response does not carry it."""
        raw = self._outputs.get(name, b"")
        return struct.unpack(f"<{len(raw) // 4}f", raw)
