"""The tensors of `backends/face_swap` (docs/architecture.md): two encoded pictures in, one out."""

from collections.abc import AsyncGenerator, AsyncIterator

from gateway.errors import ModelFailed
from gateway.model_card.card import ModelCard
from gateway.operations.operation import Progress
from gateway.operations.swap_face import SwapFace, SwappedImage
from gateway.signatures.call import Signature, SingleRequestCodec, rename_params
from gateway.triton.tensors import InferResponse, Tensor, bytes_tensor, int32_tensor, string_tensor

_PARAM_NAMES = {"quality": "output_compression"}
"""Fields of the request, by the tensors that have other names."""
explain = rename_params(_PARAM_NAMES)
_NUMBERS = ("width", "height", "num_faces")


def encode(request: SwapFace, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`."""
    tensors = [
        bytes_tensor("source", request.source),
        bytes_tensor("target", request.target),
        string_tensor("output_format", request.output_format),
    ]
    if request.quality is not None:
        tensors.append(int32_tensor("quality", request.quality))
    return tensors


async def decode(
    request: SwapFace, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[Progress | SwappedImage]:
    """Yield progress and the picture. Raises `ModelFailed` unless there is one, with its three numbers."""
    found = False
    async for response in responses:
        for fraction in response.float32s("progress"):
            yield Progress(min(max(0.0, fraction), 1.0))  # in this order, since every comparison with NaN is false
        for data in response.bytes_values("image"):
            if found:
                raise ModelFailed("The model returned more than one picture.")
            found = True
            numbers = {name: next(iter(response.int32s(name)), 0) for name in _NUMBERS}
            if min(numbers.values()) < 1:
                raise ModelFailed("The model returned a picture without its size and the number of its faces.")
            yield SwappedImage(data=data, **numbers)
    if not found:
        raise ModelFailed("The model returned no picture.")


SIGNATURE = Signature(
    inputs={"source": "BYTES", "target": "BYTES"},
    outputs={"image": "BYTES", "width": "INT32", "height": "INT32", "num_faces": "INT32"},
    codecs={SwapFace.operation: SingleRequestCodec(encode, decode, explain)},
)
