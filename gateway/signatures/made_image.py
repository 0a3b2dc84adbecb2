"""The tensors that layouts share whose answer is one picture (`gateway.operations.made_image`)."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from gateway.errors import ModelFailed
from gateway.operations.made_image import MadeImage, MakeImage
from gateway.operations.operation import Progress
from gateway.signatures.call import rename_params
from gateway.triton.tensors import InferResponse, Tensor, int32_tensor, string_tensor

explain = rename_params({"quality": "output_compression"})


def encoding_tensors(request: MakeImage) -> list[Tensor]:
    """Return the tensors that tell how the picture is encoded."""
    tensors = [string_tensor("output_format", request.output_format)]
    if request.quality is not None:
        tensors.append(int32_tensor("quality", request.quality))
    return tensors


async def read_image(
    responses: AsyncIterator[InferResponse], read: Callable[[InferResponse, bytes], MadeImage]
) -> AsyncGenerator[Progress | MadeImage]:
    """Yield progress and the picture, which `read` makes of a response and its file.

    Raises `ModelFailed` unless there is one picture, and what `read` raises.
    """
    found = False
    async for response in responses:
        for fraction in response.float32s("progress"):
            yield Progress(min(max(0.0, fraction), 1.0))  # in this order, since every comparison with NaN is false
        for data in response.bytes_values("image"):
            if found:
                raise ModelFailed("The model returned more than one picture.")
            found = True
            yield read(response, data)
    if not found:
        raise ModelFailed("The model returned no picture.")
