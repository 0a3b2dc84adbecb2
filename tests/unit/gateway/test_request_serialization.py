"""A request is written by hand, so that large tensors are copied once; it is what protobuf would write."""

import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from gateway.triton.infer_request import request_without_data, serialize
from gateway.triton.tensors import Tensor, bool_tensor, bytes_tensor, string_tensor


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_protobuf_parses_the_serialized_request(size: int) -> None:
    tensors = [
        string_tensor("text_input", "hello"),
        Tensor("raw", "UINT8", (size,), b"x" * size),
        bytes_tensor("none"),
        bool_tensor("b", True),
    ]
    head = request_without_data("model", tensors, "id")
    head.parameters["p"].bool_param = True
    parsed = ModelInferRequest.FromString(serialize(head, tensors))
    assert list(parsed.raw_input_contents) == [tensor.data for tensor in tensors]
    assert [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in parsed.inputs] == [
        (tensor.name, tensor.datatype, tensor.shape) for tensor in tensors
    ]
    assert (parsed.model_name, parsed.id, parsed.parameters["p"].bool_param) == ("model", "id", True)
