"""Write `config.pbtxt` through protobuf, so that no template or name can break its syntax."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BYTES, BOOL, FP32 = "TYPE_STRING", "TYPE_BOOL", "TYPE_FP32"
INT16, INT32, INT64, UINT32, UINT64 = "TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_UINT32", "TYPE_UINT64"


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """An input or output of a model. `dims` are in Triton's form, with -1 for any length."""

    name: str
    type: str
    dims: tuple[int, ...]
    optional: bool = False
    reshape: tuple[int, ...] | None = None
    """The dims that the engine gets instead of `dims`."""


TEXT_GENERATION_INPUTS = (
    TensorConfig("text_input", BYTES, (1,), optional=True),
    TensorConfig("literal_spans", INT32, (-1,), optional=True),
    TensorConfig("token_ids", INT32, (-1,), optional=True),
    TensorConfig("stream", BOOL, (1,), optional=True),
    TensorConfig("sampling_parameters", BYTES, (1,), optional=True),
    TensorConfig("image", BYTES, (-1,), optional=True),
    TensorConfig("exclude_input_in_output", BOOL, (1,), optional=True),
    TensorConfig("return_finish_reason", BOOL, (1,), optional=True),
    TensorConfig("return_cumulative_logprob", BOOL, (1,), optional=True),
    TensorConfig("return_logprobs", BOOL, (1,), optional=True),
    TensorConfig("return_num_input_tokens", BOOL, (1,), optional=True),
    TensorConfig("return_num_output_tokens", BOOL, (1,), optional=True),
)
TEXT_GENERATION_OUTPUTS = (
    TensorConfig("text_output", BYTES, (-1,)),
    TensorConfig("finish_reason", BYTES, (-1,)),
    TensorConfig("cumulative_logprob", FP32, (-1,)),
    TensorConfig("logprobs", BYTES, (-1,)),
    TensorConfig("num_input_tokens", UINT32, (1,)),
    TensorConfig("num_output_tokens", UINT32, (1,)),
)
"""The signature `vllm` of docs/architecture.md."""

EMBEDDING_INPUTS = (
    TensorConfig("text", BYTES, (-1,), optional=True),
    TensorConfig("token_ids", INT32, (-1,), optional=True),
    TensorConfig("token_counts", INT32, (-1,), optional=True),
    TensorConfig("dimensions", INT32, (1,), optional=True),
    TensorConfig("purpose", BYTES, (1,), optional=True),
    TensorConfig("truncate", BOOL, (1,), optional=True),
    TensorConfig("truncate_prompt_tokens", INT32, (1,), optional=True),
)
EMBEDDING_OUTPUTS = (TensorConfig("embedding", FP32, (-1, -1)), TensorConfig("num_tokens", INT32, (-1,)))
"""The signature `embedding`."""

IMAGE_INPUTS = (
    TensorConfig("prompt", BYTES, (1,)),
    TensorConfig("negative_prompt", BYTES, (1,), optional=True),
    TensorConfig("width", INT32, (1,), optional=True),
    TensorConfig("height", INT32, (1,), optional=True),
    TensorConfig("steps", INT32, (1,), optional=True),
    TensorConfig("num_images", INT32, (1,), optional=True),
    TensorConfig("guidance_scale", FP32, (1,), optional=True),
    TensorConfig("strength", FP32, (1,), optional=True),
    TensorConfig("seed", UINT64, (1,), optional=True),
    TensorConfig("image", BYTES, (-1,), optional=True),
    TensorConfig("mask", BYTES, (-1,), optional=True),
    TensorConfig("output_format", BYTES, (1,), optional=True),
    TensorConfig("quality", INT32, (1,), optional=True),
    TensorConfig("partial_images", INT32, (1,), optional=True),
)
IMAGE_OUTPUTS = (
    TensorConfig("progress", FP32, (1,)),
    TensorConfig("image", BYTES, (1,)),
    TensorConfig("seed", UINT64, (1,)),
    TensorConfig("index", INT32, (1,)),
    TensorConfig("partial", INT32, (1,)),
)
"""The signature `image`."""

VIDEO_INPUTS = (
    TensorConfig("prompt", BYTES, (1,)),
    TensorConfig("negative_prompt", BYTES, (1,), optional=True),
    TensorConfig("width", INT32, (1,), optional=True),
    TensorConfig("height", INT32, (1,), optional=True),
    TensorConfig("steps", INT32, (1,), optional=True),
    TensorConfig("num_frames", INT32, (1,), optional=True),
    TensorConfig("fps", INT32, (1,), optional=True),
    TensorConfig("guidance_scale", FP32, (1,), optional=True),
    TensorConfig("strength", FP32, (1,), optional=True),
    TensorConfig("seed", UINT64, (1,), optional=True),
    TensorConfig("image", BYTES, (-1,), optional=True),
    TensorConfig("frames", BYTES, (-1,), optional=True),
    TensorConfig("quality", INT32, (1,), optional=True),
    TensorConfig("partial_images", INT32, (1,), optional=True),
)
VIDEO_OUTPUTS = (
    TensorConfig("progress", FP32, (1,)),
    TensorConfig("preview", BYTES, (1,)),
    TensorConfig("partial", INT32, (1,)),
    TensorConfig("video", BYTES, (1,)),
    TensorConfig("width", INT32, (1,)),
    TensorConfig("height", INT32, (1,)),
    TensorConfig("num_frames", INT32, (1,)),
    TensorConfig("fps", INT32, (1,)),
    TensorConfig("seed", UINT64, (1,)),
)
"""The signature `video`."""

UPSCALING_INPUTS = (
    TensorConfig("image", BYTES, (1,)),
    TensorConfig("scale", INT32, (1,), optional=True),
    TensorConfig("output_format", BYTES, (1,), optional=True),
    TensorConfig("quality", INT32, (1,), optional=True),
)
UPSCALING_OUTPUTS = (
    TensorConfig("progress", FP32, (1,)),
    TensorConfig("image", BYTES, (1,)),
    TensorConfig("width", INT32, (1,)),
    TensorConfig("height", INT32, (1,)),
)
"""The signature `upscaling`."""

SPEECH_INPUTS = (
    TensorConfig("text", BYTES, (1,)),
    TensorConfig("voice", BYTES, (1,), optional=True),
    TensorConfig("language", BYTES, (1,), optional=True),
    TensorConfig("speed", FP32, (1,), optional=True),
    TensorConfig("instructions", BYTES, (1,), optional=True),
)
SPEECH_OUTPUTS = (
    TensorConfig("audio", INT16, (-1,)),
    TensorConfig("sample_rate", INT32, (1,)),
    TensorConfig("num_input_tokens", UINT32, (1,)),
    TensorConfig("num_output_tokens", UINT32, (1,)),
)
"""The signature `speech`."""


def render(
    name: str,
    backend: str,
    inputs: tuple[TensorConfig, ...],
    outputs: tuple[TensorConfig, ...],
    parameters: Mapping[str, object],
    *,
    decoupled: bool,
    max_batch_size: int = 0,
    instance_kind: str | None = None,
    gpus: Sequence[int] = (),
    platform: str = "",
    cuda_options: Mapping[str, str] | None = None,
) -> str:
    """Return a model's `config.pbtxt`. Parameters that are not strings are written as JSON; None is left out.

    With a `max_batch_size`, the dims leave out the batch, Triton batches requests, and the model runs on a GPU if there
    is one. Without it, the model gets requests one by one and runs on the CPU. Another `instance_kind` (`KIND_MODEL`:
    the model itself chooses its devices) overrides where it runs. `gpus` are the numbers of the GPUs that have an
    instance each; none means, for `KIND_GPU`, all. `cuda_options` are those of ONNX Runtime's CUDA provider, as
    NVIDIA's ONNX Runtime backend reads them.
    """
    from tritonclient.grpc import model_config_pb2 as pb

    config = pb.ModelConfig(name=name, backend=backend, platform=platform)
    config.model_transaction_policy.decoupled = decoupled
    for tensor in inputs:
        added = config.input.add(
            name=tensor.name, data_type=pb.DataType.Value(tensor.type), dims=tensor.dims, optional=tensor.optional
        )
        if tensor.reshape is not None:
            added.reshape.SetInParent()  # sets an empty shape too
            added.reshape.shape.extend(tensor.reshape)
    for tensor in outputs:
        config.output.add(name=tensor.name, data_type=pb.DataType.Value(tensor.type), dims=tensor.dims)
    kind = instance_kind or ("KIND_AUTO" if max_batch_size else "KIND_CPU")
    config.instance_group.add(kind=pb.ModelInstanceGroup.Kind.Value(kind), count=1, gpus=gpus)
    if max_batch_size:
        config.dynamic_batching.SetInParent()
    if cuda_options:
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        accelerators.add(name="cuda", parameters=cuda_options)
    for key, value in parameters.items():
        if value is not None:
            config.parameters[key].string_value = _text(value)
    # Triton requires max_batch_size, and protobuf would leave out a zero because it is the default.
    return f"max_batch_size: {max_batch_size}\n{to_text(config)}"


def to_text(config: Any) -> str:
    """Return protobuf's `ModelConfig` as the text of a `config.pbtxt`."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config, as_utf8=True))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse(text: str) -> Any:
    """Parse a `config.pbtxt` into protobuf's `ModelConfig`."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    return text_format.Parse(text, pb.ModelConfig())
