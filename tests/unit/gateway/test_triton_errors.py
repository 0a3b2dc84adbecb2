"""Failures of Triton, and the gateway's errors that they become."""

import pytest

from gateway import errors
from gateway.errors import RETRY_AFTER_SECONDS
from gateway.triton.failures import to_gateway_error
from gateway.triton.rpc.status import Status

S = Status
GONE = "The model's server is not available; try again later."


@pytest.mark.parametrize(
    ("status", "message", "kind", "param", "sentence"),
    [
        (None, "[context_length_exceeded:text_input] 9 > 8.", errors.ContextLengthExceeded, "text_input", "9 > 8."),
        (None, "[invalid_value:top_p] It is 7.", errors.InvalidRequest, "top_p", "It is 7."),
        (S.INVALID_ARGUMENT, "[unsupported_option:lora_name] No.", errors.UnsupportedOption, "lora_name", "No."),
        (S.UNAVAILABLE, "[overloaded] 1024 requests wait.", errors.QueueFull, None, "1024 requests wait."),
        (S.INTERNAL, "[engine_failed] It broke.", errors.ModelFailed, None, "It broke."),
        (None, "[unavailable] The component c failed: Server not ready", errors.ServerUnavailable, None, GONE),
        (None, "Server not ready", errors.ServerUnavailable, None, GONE),
        (S.NOT_FOUND, "no such model", errors.ModelNotFound, None, "no such model"),
        (S.UNAVAILABLE, "gone", errors.ServerUnavailable, None, GONE),
        (S.INTERNAL, "Stub process 'm_0_0' is not healthy.", errors.ModelProcessUnavailable, None, GONE),
        (S.INTERNAL, "unknown model: 'm'", errors.ModelNotFound, None, "unknown model: 'm'"),
        (S.INTERNAL, "[1] is not a code of ours", errors.ModelFailed, None, "[1] is not a code of ours"),
        (None, "in flight error", errors.ModelFailed, None, "in flight error"),
        (S.UNKNOWN, None, errors.ModelFailed, None, "Triton failed without a message."),
    ],
)  # fmt: skip
def test_grpc_errors_become_gateway_errors(
    status: Status | None, message: str | None, kind: type[errors.GatewayError], param: str | None, sentence: str
) -> None:
    error = to_gateway_error(status, message)
    assert type(error) is kind
    assert (error.param, error.message) == (param, sentence)
    assert error.retry_after == (
        RETRY_AFTER_SECONDS if issubclass(kind, errors.Overloaded | errors.QueueFull) else None
    )
