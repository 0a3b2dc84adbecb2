"""The transcription tensors (docs/architecture.md): audio in, a response for each segment of text out."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.errors import GatewayError
from gateway.model_card.card import ModelCard
from gateway.operations.transcribe import Segment, Transcribe
from gateway.signatures.call import Signature, SingleRequestCodec
from gateway.triton.tensors import InferResponse, Tensor, string_tensor

INPUTS: Mapping[str, str] = {"audio": "FP32", "task": "BYTES", "timestamps": "BYTES"}
OUTPUTS: Mapping[str, str] = {"text": "BYTES"}


def encode(request: Transcribe, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`."""
    samples = Tensor("audio", "FP32", (len(request.audio) // 4,), request.audio)
    return [samples, string_tensor("task", "transcribe"), string_tensor("timestamps", "none")]


def explain(error: GatewayError) -> GatewayError:
    """Return a failure without the name of a tensor, which callers do not know."""
    error.param = None
    return error


async def decode(
    request: Transcribe, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[Segment]:
    """Yield each segment as it arrives."""
    async for response in responses:
        for segment in response.strings("text"):
            yield Segment(segment)


SIGNATURE = Signature(
    inputs=INPUTS, outputs=OUTPUTS, codecs={Transcribe.operation: SingleRequestCodec(encode, decode, explain)}
)
