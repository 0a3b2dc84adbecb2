"""The models behind an ensemble of TensorRT-LLM: the one that tokenises its prompts, and the one that generates."""

from collections.abc import Mapping

from gateway.model_card.card import tokenizes_without_special_tokens
from gateway.signatures import third_party
from gateway.triton.client import StopRequest
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import bool_tensor, int32_tensor

_PREPROCESSING = "preprocessing"
"""The model that tensorrt_llm_bls asks for the tokens of a prompt (inflight_batcher_llm/preprocessing/1/model.py)."""


def adds_special_tokens(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> bool:
    """Return whether the model that tokenises prompts adds special tokens, which is its default.

    `configs` are the models of its server, by name.
    """
    steps = (configs[name] for name in config.steps or (_PREPROCESSING,) if name in configs)
    return not any(tokenizes_without_special_tokens(step) for step in steps)


def stop_request(core: ModelConfig) -> StopRequest | None:
    """Return the request that stops another request of the model `core`; None if `core` is not the generating step.

    Triton does not forward a cancellation to the running step of an ensemble. The step has the ensemble's
    request id. The tensors are those of `TritonDecoder.send_cancellation_request`.
    """
    expected = {"input_ids": "INT32", "input_lengths": "INT32", "request_output_len": "INT32", "stop": "BOOL"}
    if not expected.items() <= core.inputs.items():
        return None
    tensors = [
        int32_tensor("input_ids", 0),
        int32_tensor("input_lengths", 0),
        int32_tensor("request_output_len", 0),
        bool_tensor("stop", True),
    ]
    return StopRequest(core.name, tuple(third_party.fit_tensors(tensors, core)))
