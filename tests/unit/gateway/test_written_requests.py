"""A request is written by hand, so that large tensors are copied once; it is what protobuf would write."""

import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from gateway.tensors import Tensor, blobs, boolean, text
from gateway.triton import _head, _written


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_it_is_what_protobuf_reads(size: int) -> None:
    tensors = [
        text("text_input", "hello"),
        Tensor("raw", "UINT8", (size,), b"x" * size),
        blobs("none"),
        boolean("b", True),
    ]
    head = _head("model", tensors, "id")
    head.parameters["p"].bool_param = True
    read = ModelInferRequest.FromString(_written(head, tensors))
    assert list(read.raw_input_contents) == [tensor.data for tensor in tensors]
    assert [(each.name, each.datatype, tuple(each.shape)) for each in read.inputs] == [
        (tensor.name, tensor.datatype, tensor.shape) for tensor in tensors
    ]
    assert (read.model_name, read.id, read.parameters["p"].bool_param) == ("model", "id", True)
