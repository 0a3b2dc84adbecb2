"""The tensors of `backends/diffusion` (docs/architecture.md), which generates and edits images."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from itertools import count

from gateway.errors import ModelFailed, UnsupportedOption
from gateway.media import resize
from gateway.model_card.card import ModelCard
from gateway.model_card.image_limits import ImageLimits, format_size
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, Image, ImageEvent, PartialImage, Progress
from gateway.signatures.call import Events, Responses, Signature, SingleRequestCodec, rename_params
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
"""Fields of the request, by the tensors that have other names."""
explain = rename_params(_PARAM_NAMES)

_MIN_SIDE = 64
_MAX_PIXELS = 3840 * 2160
"""Limits of the sizes to which images are scaled: the pixels of OpenAI's largest size, and the shortest side."""


def encode(request: GenerateImage, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `UnsupportedOption` for a size that the model does not generate, and for an option that it has no tensor for.
    """
    limits = card.image
    width, height = _size(request, limits)
    if request.n > limits.max_images:
        raise UnsupportedOption(
            f"This model generates up to {limits.max_images} images per request.", param="num_images"
        )
    if limits.max_steps is not None and (request.steps or 0) > limits.max_steps:
        raise UnsupportedOption(f"'steps' must be at most {limits.max_steps} for this model.", param="steps")
    steps = limits.steps(request.effort) if request.steps is None else request.steps
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
                f"This model does not support '{_PARAM_NAMES.get(tensor.name, tensor.name)}'.", param=tensor.name
            )
    return tensors


def _edit_tensors(request: EditImage) -> list[Tensor]:
    tensors = [bytes_tensor("image", *request.images)]
    if request.mask is not None:
        tensors.append(bytes_tensor("mask", request.mask))
    if request.strength is not None:
        tensors.append(float32_tensor("strength", request.strength))
    return tensors


def _size(request: GenerateImage, limits: ImageLimits) -> tuple[int | None, int | None]:
    """Return the size to request from the model. The model itself handles a request that gives one side only."""
    width, height = request.width, request.height
    if width is None or height is None or limits.supports_size(width, height):
        return width, height
    if not (request.allow_resize and _can_be_scaled(width, height)):
        raise UnsupportedOption(
            f"This model does not generate images of {format_size((width, height))}; supported: "
            f"{limits.describe_sizes()}.",
            param="width",
        )
    return limits.nearest_size(width, height)


def _can_be_scaled(width: int, height: int) -> bool:
    return min(width, height) >= _MIN_SIDE and width * height <= _MAX_PIXELS


async def decode(
    request: GenerateImage, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[ImageEvent]:
    """Yield progress, previews and images. Raises `ModelFailed` for an image that was not requested or is missing."""
    missing = set(range(request.n))
    next_index = count()
    async for response in responses:
        for fraction in response.float32s("progress"):
            yield Progress(min(max(0.0, fraction), 1.0))  # in this order, since every comparison with NaN is false
        for data in response.bytes_values("image"):
            number = next(iter(response.int32s("partial")), None)
            given_index = next(iter(response.int32s("index")), None)
            if number is not None:
                if given_index is not None and given_index not in missing:
                    raise ModelFailed(f"The model returned a preview of image {given_index}, which was not requested.")
                yield PartialImage(given_index or 0, number, data)
                continue
            index = next(next_index) if given_index is None else given_index
            if index not in missing:
                raise ModelFailed(f"The model returned image {index}, which was not requested.")
            missing.remove(index)
            yield Image(index, data, next(iter(response.uint64s("seed")), None))
    if missing:
        raise ModelFailed(f"The model returned {request.n - len(missing)} images of {request.n}.")


def _decode_resized(request: GenerateImage, responses: Responses, card: ModelCard) -> Events:
    """Yield the events of `decode`, with images in the requested size."""
    events = decode(request, responses, card)
    return resize.resize_images(events, request) if request.allow_resize else events


_CODEC = SingleRequestCodec(encode, _decode_resized, explain)
SIGNATURE = Signature(
    inputs=INPUTS, outputs=OUTPUTS, codecs={GenerateImage.operation: _CODEC, EditImage.operation: _CODEC}
)
