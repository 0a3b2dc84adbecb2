"""The tensors of `backends/face_swap` (docs/architecture.md): two encoded pictures in, one out."""

from collections.abc import AsyncGenerator, AsyncIterator

from gateway.errors import ModelFailed
from gateway.model_card.card import ModelCard
from gateway.operations.made_image import MadeImage
from gateway.operations.operation import Progress
from gateway.operations.swap_face import SwapFace, SwappedImage
from gateway.signatures.call import Signature, SingleRequestCodec
from gateway.signatures.made_image import encoding_tensors, explain, read_image
from gateway.triton.tensors import InferResponse, Tensor, bytes_tensor


def encode(request: SwapFace, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`."""
    return [
        bytes_tensor("source", request.source),
        bytes_tensor("target", request.target),
        *encoding_tensors(request),
    ]


def decode(
    request: SwapFace, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[Progress | MadeImage]:
    """Yield progress and the picture. Raises `ModelFailed` unless there is one, with its three numbers."""
    return read_image(responses, _read)


def _read(response: InferResponse, data: bytes) -> SwappedImage:
    numbers = {name: next(iter(response.int32s(name)), 0) for name in SwapFace.fact_names}
    if min(numbers.values()) < 1:
        raise ModelFailed("The model returned a picture without its size and the number of its faces.")
    return SwappedImage(data=data, **numbers)


SIGNATURE = Signature(
    inputs={"source": "BYTES", "target": "BYTES"},
    outputs={"image": "BYTES", "width": "INT32", "height": "INT32", "num_faces": "INT32"},
    codecs={SwapFace.operation: SingleRequestCodec(encode, decode, explain)},
)
