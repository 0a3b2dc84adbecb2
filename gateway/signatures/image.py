"""The image tensors of `backends/diffusion` (docs/architecture.md): for drawing, and for editing."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from itertools import count

from gateway.errors import GatewayError, ModelFailed, UnsupportedOption
from gateway.media import resize
from gateway.model_card.card import ModelCard
from gateway.model_card.image_limits import ImageLimits, format_size
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, Image, ImageEvent, PartialImage, Progress
from gateway.signatures.call import Events, Responses, Signature, SingleRequestCodec
from gateway.triton.tensors import (
    InferResponse,
    Tensor,
    bytes_tensor,
    float32_tensor,
    int32_tensor,
    string_tensor,
    uint64_tensor,
)

INPUTS: Mapping[str, str] = {"prompt": "BYTES"}
OUTPUTS: Mapping[str, str] = {"image": "BYTES"}

_PARAM_NAMES = {"num_images": "n", "width": "size", "height": "size", "quality": "output_compression"}
"""What callers call these tensors; the others they call by their names."""


_MIN_SIDE = 64
_MAX_PIXELS = 3840 * 2160
"""What a picture can be scaled to: OpenAI's own largest size, and nothing too small to see."""


def encode(request: GenerateImage, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `UnsupportedOption` for sizes that the model does not draw, and for options that it has no tensor for.
    """
    drawing = card.image
    width, height = _size(request, drawing)
    if request.n > drawing.max_images:
        raise UnsupportedOption(f"This model draws up to {drawing.max_images} pictures at a time.", param="num_images")
    if drawing.max_steps is not None and (request.steps or 0) > drawing.max_steps:
        raise UnsupportedOption(f"This model takes up to {drawing.max_steps} steps.", param="steps")
    steps = drawing.steps(request.effort) if request.steps is None else request.steps
    tensors = [string_tensor("prompt", request.prompt), int32_tensor("num_images", request.n)]
    for name, number in (("width", width), ("height", height), ("steps", steps), ("quality", request.quality)):
        if number is not None:
            tensors.append(int32_tensor(name, number))
    if request.negative_prompt is not None:
        tensors.append(string_tensor("negative_prompt", request.negative_prompt))
    if request.guidance_scale is not None:
        tensors.append(float32_tensor("guidance_scale", request.guidance_scale))
    if request.seed is not None:
        tensors.append(uint64_tensor("seed", request.seed))
    tensors.append(string_tensor("output_format", request.output_format))
    if request.partial_images:
        tensors.append(int32_tensor("partial_images", request.partial_images))
    if isinstance(request, EditImage):
        tensors += _edit_tensors(request)
    for tensor in tensors:
        if not card.has_input(tensor.name):
            raise UnsupportedOption(
                f"This model has no '{_PARAM_NAMES.get(tensor.name, tensor.name)}'.", param=tensor.name
            )
    return tensors


def _edit_tensors(request: EditImage) -> list[Tensor]:
    tensors = [bytes_tensor("image", *request.images)]
    if request.mask is not None:
        tensors.append(bytes_tensor("mask", request.mask))
    if request.strength is not None:
        tensors.append(float32_tensor("strength", request.strength))
    return tensors


def _size(request: GenerateImage, drawing: ImageLimits) -> tuple[int | None, int | None]:
    """The size to ask for. One side alone is completed by the model, and refused by it."""
    width, height = request.width, request.height
    if width is None or height is None or drawing.supports_size(width, height):
        return width, height
    if not (request.allow_resize and _can_be_scaled(width, height)):
        raise UnsupportedOption(
            f"This model does not draw pictures of {format_size((width, height))}; it draws "
            f"{drawing.describe_sizes()}.",
            param="width",
        )
    return drawing.nearest_size(width, height)


def _can_be_scaled(width: int, height: int) -> bool:
    return min(width, height) >= _MIN_SIDE and width * height <= _MAX_PIXELS


def explain(error: GatewayError) -> GatewayError:
    """Name the caller's field, where a tensor was named."""
    if error.param:
        error.param = _PARAM_NAMES.get(error.param, error.param)
    return error


async def decode(
    request: GenerateImage, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[ImageEvent]:
    """Yield progress, previews and pictures. Raises `ModelFailed` where others come than were asked for."""
    missing = set(range(request.n))
    next_index = count()
    async for response in responses:
        for fraction in response.float32s("progress"):
            yield Progress(min(max(0.0, fraction), 1.0))  # in this order, as nothing is less than NaN
        for data in response.bytes_values("image"):
            number = next(iter(response.int32s("partial")), None)
            told = next(iter(response.int32s("index")), None)
            if number is not None:
                if told is not None and told not in missing:
                    raise ModelFailed(f"The model gave a preview of picture {told}, which it does not draw.")
                yield PartialImage(told or 0, number, data)
                continue
            index = next(next_index) if told is None else told
            if index not in missing:
                raise ModelFailed(f"The model gave a picture {index} that was not asked for.")
            missing.remove(index)
            yield Image(index, data, next(iter(response.uint64s("seed")), None))
    if missing:
        raise ModelFailed(f"The model gave {request.n - len(missing)} pictures of {request.n}.")


def _decode_resized(request: GenerateImage, responses: Responses, card: ModelCard) -> Events:
    """Yield the events of `decode`, images in the size that the caller asked for."""
    events = decode(request, responses, card)
    return resize.resize_images(events, request) if request.allow_resize else events


_CODEC = SingleRequestCodec(encode, _decode_resized, explain)
SIGNATURE = Signature(inputs=INPUTS, outputs=OUTPUTS, codecs={"generate_image": _CODEC, "edit_image": _CODEC})
