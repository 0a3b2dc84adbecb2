"""How a request to an ensemble of TensorRT-LLM is stopped."""

from gateway.signatures import third_party
from gateway.triton.client import ModelConfig, StopRequest
from gateway.triton.tensors import bool_tensor, int32_tensor


def stop_request(core: ModelConfig) -> StopRequest | None:
    """How the model `core` is told to stop a request, where it is the ensemble's step that generates.

    Triton does not hand a hang-up on to the step that an ensemble waits for, and gives it the ensemble's request id.
    The tensors are those of `TritonDecoder.send_cancellation_request`.
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
