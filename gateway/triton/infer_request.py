"""Inference requests as bytes: protobuf's own encoder would copy the data of their tensors once more."""

from collections.abc import Sequence

from gateway.triton.messages import service_pb2 as pb
from gateway.triton.tensors import Tensor

_RAW_CONTENTS_TAG = bytes((pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2,))
"""The protobuf tag before the length and the data of each tensor. Tensors are in the order of `inputs`."""


def request_without_data(model: str, tensors: Sequence[Tensor], request_id: str) -> pb.ModelInferRequest:
    """Return a request without the data of its tensors."""
    return pb.ModelInferRequest(
        model_name=model,
        id=request_id,
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in tensors
        ],
    )


def serialize(head: pb.ModelInferRequest, tensors: Sequence[Tensor]) -> bytes:
    """Return a serialized request. Protobuf would copy up to a hundred megabytes of tensors a second time."""
    parts = [head.SerializeToString()]
    for tensor in tensors:
        parts += (_RAW_CONTENTS_TAG, _varint(len(tensor.data)), tensor.data)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
