"""The configuration of a model, as the gateway needs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.triton.messages import model_config_pb2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The `config.pbtxt` of a model: its parameters, and its tensors as names with datatypes.

    A `max_batch_size` above 0 adds a batch dimension before all others. `decoupled` models may send many responses to a
    request. `steps` are the models of an ensemble. `ranks` are the numbers of dimensions of the inputs as they are
    sent, with the batch dimension. `optional` are the inputs that a request may leave out.
    """

    name: str
    parameters: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    serialized: bytes
    max_batch_size: int = 0
    decoupled: bool = True
    steps: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


def read_config(config: model_config_pb2.ModelConfig) -> ModelConfig:
    """Return what the gateway needs of a configuration."""
    return ModelConfig(
        name=config.name,
        parameters={key: value.string_value for key, value in config.parameters.items()},
        inputs={tensor.name: _datatype(tensor.data_type) for tensor in config.input},
        outputs={tensor.name: _datatype(tensor.data_type) for tensor in config.output},
        serialized=config.SerializeToString(deterministic=True),
        max_batch_size=config.max_batch_size,
        decoupled=config.model_transaction_policy.decoupled,
        steps=tuple(step.model_name for step in config.ensemble_scheduling.step),
        ranks={tensor.name: len(tensor.dims) + (config.max_batch_size > 0) for tensor in config.input},
        optional=frozenset(tensor.name for tensor in config.input if tensor.optional),
    )


def _datatype(data_type: int) -> str:
    """Return the datatype of a tensor. `TYPE_STRING` of a configuration is `BYTES`."""
    name = str(model_config_pb2.DataType.Name(data_type)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
