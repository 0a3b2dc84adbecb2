"""Write `config.pbtxt` through protobuf, so that no template or name can break it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES, BOOL, INT32, UINT32, FP32 = "TYPE_STRING", "TYPE_BOOL", "TYPE_INT32", "TYPE_UINT32", "TYPE_FP32"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: `dims` as Triton writes them, -1 for any length."""

    name: str
    type: str
    dims: tuple[int, ...]
    optional: bool = False


TEXT_GENERATION_INPUTS = (
    Tensor("text_input", BYTES, (1,), optional=True),
    Tensor("token_ids", INT32, (-1,), optional=True),
    Tensor("stream", BOOL, (1,), optional=True),
    Tensor("sampling_parameters", BYTES, (1,), optional=True),
    Tensor("image", BYTES, (-1,), optional=True),
    Tensor("exclude_input_in_output", BOOL, (1,), optional=True),
    Tensor("return_finish_reason", BOOL, (1,), optional=True),
    Tensor("return_logprobs", BOOL, (1,), optional=True),
    Tensor("return_num_input_tokens", BOOL, (1,), optional=True),
    Tensor("return_num_output_tokens", BOOL, (1,), optional=True),
)
TEXT_GENERATION_OUTPUTS = (
    Tensor("text_output", BYTES, (-1,)),
    Tensor("finish_reason", BYTES, (-1,)),
    Tensor("logprobs", BYTES, (-1,)),
    Tensor("num_input_tokens", UINT32, (1,)),
    Tensor("num_output_tokens", UINT32, (1,)),
)
"""The signature `vllm` of docs/architecture.md."""

EMBEDDING_INPUTS = (
    Tensor("text", BYTES, (-1,), optional=True),
    Tensor("token_ids", INT32, (-1,), optional=True),
    Tensor("token_counts", INT32, (-1,), optional=True),
    Tensor("dimensions", INT32, (1,), optional=True),
    Tensor("purpose", BYTES, (1,), optional=True),
    Tensor("truncate", BOOL, (1,), optional=True),
)
EMBEDDING_OUTPUTS = (Tensor("embedding", FP32, (-1, -1)), Tensor("num_tokens", INT32, (-1,)))
"""The signature `embedding`."""


def render(
    name: str,
    backend: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    parameters: Mapping[str, object],
    *,
    decoupled: bool,
) -> str:
    """Render a model's `config.pbtxt`. A parameter that is not a string is written as JSON; None is left out."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    config = pb.ModelConfig(name=name, backend=backend)
    config.model_transaction_policy.decoupled = decoupled
    for tensor in inputs:
        config.input.add(
            name=tensor.name, data_type=pb.DataType.Value(tensor.type), dims=tensor.dims, optional=tensor.optional
        )
    for tensor in outputs:
        config.output.add(name=tensor.name, data_type=pb.DataType.Value(tensor.type), dims=tensor.dims)
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
    for key, value in parameters.items():
        if value is not None:
            config.parameters[key].string_value = _text(value)
    # Triton wants the zero written; protobuf leaves it out because it is the default.
    return f"max_batch_size: 0\n{text_format.MessageToString(config, as_utf8=True)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse(text: str) -> Any:
    """Read a `config.pbtxt` back as `ModelConfig`."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    return text_format.Parse(text, pb.ModelConfig())
