"""The tensors of `backends/upscaling` (docs/architecture.md): an encoded picture in, a larger one out."""

from collections.abc import AsyncGenerator, AsyncIterator

from gateway.errors import InvalidRequest, ModelFailed, UnsupportedOption
from gateway.media import encoded_image
from gateway.model_card.card import ModelCard
from gateway.operations.made_image import MadeImage
from gateway.operations.operation import Progress
from gateway.operations.upscale_image import UpscaleImage
from gateway.signatures.call import Signature, SingleRequestCodec
from gateway.signatures.made_image import encoding_tensors, explain, read_image
from gateway.triton.tensors import InferResponse, Tensor, bytes_tensor, int32_tensor


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
    return [
        bytes_tensor("image", request.image),
        int32_tensor("scale", request.scale),
        *encoding_tensors(request),
    ]


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


def decode(
    request: UpscaleImage, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[Progress | MadeImage]:
    """Yield progress and the picture. Raises `ModelFailed` unless there is one."""
    return read_image(responses, _read)


def _read(response: InferResponse, data: bytes) -> MadeImage:
    try:
        width, height = encoded_image.image_size(data)
    except ValueError:
        raise ModelFailed("The model returned data that is not an image.") from None
    return MadeImage(data=data, width=width, height=height)


SIGNATURE = Signature(
    inputs={"image": "BYTES", "scale": "INT32"},
    outputs={"image": "BYTES"},
    codecs={UpscaleImage.operation: SingleRequestCodec(encode, decode, explain)},
)
