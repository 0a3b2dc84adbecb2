"""The tensors of `backends/upscaling` (docs/architecture.md): an encoded picture in, a larger one out."""

from collections.abc import AsyncGenerator, AsyncIterator

from gateway.errors import InvalidRequest, ModelFailed, UnsupportedOption
from gateway.media import encoded_image
from gateway.model_card.card import ModelCard
from gateway.operations.made_image import MadeImage
from gateway.operations.operation import Progress
from gateway.operations.upscale_image import UpscaleImage
from gateway.signatures.call import Signature, SingleRequestCodec, rename_params
from gateway.triton.tensors import InferResponse, Tensor, bytes_tensor, int32_tensor, string_tensor

_PARAM_NAMES = {"quality": "output_compression"}
"""Fields of the request, by the tensors that have other names."""
explain = rename_params(_PARAM_NAMES)


def encode(request: UpscaleImage, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `UnsupportedOption` for a scale that the model does not have, and `InvalidRequest` for a picture of too many
    pixels.
    """
    limits = card.upscaling
    if request.scale not in limits.scales:
        scales = " or ".join(map(str, limits.scales))
        raise UnsupportedOption(f"This model upscales by {scales}, not by {request.scale}.", param="scale")
    _check_size(request, limits.max_pixels_at(request.scale))
    tensors = [
        bytes_tensor("image", request.image),
        int32_tensor("scale", request.scale),
        string_tensor("output_format", request.output_format),
    ]
    if request.quality is not None:
        tensors.append(int32_tensor("quality", request.quality))
    return tensors


def _check_size(request: UpscaleImage, limit: int | None) -> None:
    if limit is None:
        return
    try:
        width, height = encoded_image.image_size(request.image)
    except ValueError:
        raise InvalidRequest("'image' cannot be read as an image.", param="image") from None
    if width * height > limit:
        raise InvalidRequest(
            f"'image' has {width} x {height} pixels; this model upscales at most {limit} pixels by {request.scale}.",
            param="image",
        )


async def decode(
    request: UpscaleImage, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[Progress | MadeImage]:
    """Yield progress and the picture. Raises `ModelFailed` unless there is one."""
    found = False
    async for response in responses:
        for fraction in response.float32s("progress"):
            yield Progress(min(max(0.0, fraction), 1.0))  # in this order, since every comparison with NaN is false
        for data in response.bytes_values("image"):
            if found:
                raise ModelFailed("The model returned more than one picture.")
            found = True
            try:
                width, height = encoded_image.image_size(data)
            except ValueError:
                raise ModelFailed("The model returned data that is not an image.") from None
            yield MadeImage(data=data, width=width, height=height)
    if not found:
        raise ModelFailed("The model returned no picture.")


SIGNATURE = Signature(
    inputs={"image": "BYTES", "scale": "INT32"},
    outputs={"image": "BYTES"},
    codecs={UpscaleImage.operation: SingleRequestCodec(encode, decode, explain)},
)
