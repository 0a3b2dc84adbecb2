"""Write small ONNX graphs without the package `onnx`, which a machine that serves models does not have.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3, encoded as protocol buffers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ELEMENT_TYPES: dict[npt.DTypeLike, int] = {np.float32: 1, np.int64: 7, np.float16: 10}
"""`TensorProto.DataType` of the numpy types in use."""

_IR_VERSION, _OPSET = 8, 16
_INT, _TENSOR = 2, 4
"""`AttributeProto.AttributeType`."""


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of a graph. Dimensions with a name may have any size."""

    name: str
    dtype: npt.DTypeLike
    shape: Sequence[int | str]


@dataclass(frozen=True, slots=True)
class Node:
    """An operator. Attributes are integers, or one number as a tensor of one element."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: dict[str, int | np.generic] = field(default_factory=dict)


def encode_model(nodes: Iterable[Node], inputs: Iterable[Value], outputs: Iterable[Value]) -> bytes:
    """Return a `ModelProto` of opset 16, which `onnxruntime.InferenceSession` loads."""
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _message(2, b"graph"),
            *(_message(11, _value(value)) for value in inputs),
            *(_message(12, _value(value)) for value in outputs),
        ]
    )
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _number(2, _OPSET))


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(_message(1, name.encode()) for name in node.inputs),
            *(_message(2, name.encode()) for name in node.outputs),
            _message(4, node.operator.encode()),
            *(_message(5, _attribute(name, value)) for name, value in node.attributes.items()),
        ]
    )


def _attribute(name: str, value: int | np.generic) -> bytes:
    if isinstance(value, int):
        return _message(1, name.encode()) + _number(3, value) + _number(20, _INT)
    tensor = _number(1, 1) + _number(2, ELEMENT_TYPES[type(value)]) + _message(9, value.tobytes())
    return _message(1, name.encode()) + _message(5, tensor) + _number(20, _TENSOR)


def _value(value: Value) -> bytes:
    dims = (_number(1, dim) if isinstance(dim, int) else _message(2, dim.encode()) for dim in value.shape)
    shape = b"".join(_message(1, dim) for dim in dims)
    tensor_type = _number(1, ELEMENT_TYPES[value.dtype]) + _message(2, shape)
    return _message(1, value.name.encode()) + _message(2, _message(1, tensor_type))


def _message(number: int, content: bytes) -> bytes:
    """Encode a field that has a length: a message, a string or bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
