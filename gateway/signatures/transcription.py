"""The transcription tensors (docs/architecture.md): sound in, a response for each segment of text out."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.errors import GatewayError
from gateway.operations.transcribe import Segment, Transcribe
from gateway.triton.client import ModelConfig
from gateway.triton.tensors import InferResponse, Tensor, string_tensor

INPUTS: Mapping[str, str] = {"audio": "FP32", "task": "BYTES", "timestamps": "BYTES"}
OUTPUTS: Mapping[str, str] = {"text": "BYTES"}


def split_request(request: Transcribe, config: ModelConfig) -> list[Transcribe]:
    """One request carries everything."""
    return [request]


def encode(request: Transcribe, config: ModelConfig) -> list[Tensor]:
    """Return the tensors of `request`."""
    samples = Tensor("audio", "FP32", (len(request.audio) // 4,), request.audio)
    return [samples, string_tensor("task", "transcribe"), string_tensor("timestamps", "none")]


def check(parameters: Mapping[str, str]) -> None:
    """Every model with these tensors can be asked."""


def explain(error: GatewayError) -> GatewayError:
    """The tensors have no names that a caller knows."""
    error.param = None
    return error


async def decode(
    request: Transcribe, responses: AsyncIterator[InferResponse], config: ModelConfig
) -> AsyncGenerator[Segment]:
    """Yield the segments as they come."""
    async for response in responses:
        for segment in response.strings("text"):
            yield Segment(segment)
