"""The tensors of videos, which `backends/diffusion` generates (docs/architecture.md)."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from gateway.errors import InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.model_card.image_limits import format_size
from gateway.operations.generate_video import SIZE_AND_LENGTH, GenerateVideo, Video, VideoEvent
from gateway.operations.operation import Progress
from gateway.operations.recording import Attachment
from gateway.signatures.call import Signature, SingleRequestCodec, rename_params
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
OUTPUTS: Mapping[str, str] = {"video": "BYTES"}

_PARAM_NAMES = {
    "width": "size",
    "height": "size",
    "num_frames": "seconds",
    "image": "input_reference",
    "frames": "input_reference",
}
"""Fields of the request, by the tensors that have other names."""
explain = rename_params(_PARAM_NAMES)
_DEFAULT_STRENGTH = 0.8
"""The strength of the signature where a request with `frames` names none."""
_ROUNDING = 1e-6
"""Steps by which a product may fall below a whole number, for it is rounded."""
_REFERENCE_PHRASES = {"image": "start from a picture", "frames": "change another video"}


def encode(request: GenerateVideo, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `UnsupportedOption` for a size or length that the model does not generate, and for an option that it has no
    tensor for, and `InvalidRequest` without a first frame that the model needs, and for a strength that leaves no step.
    """
    _check_limits(request, card)
    tensors = [string_tensor("prompt", request.prompt)]
    if request.negative_prompt is not None:
        tensors.append(string_tensor("negative_prompt", request.negative_prompt))
    for name in (*SIZE_AND_LENGTH, "steps", "quality"):
        number = getattr(request, name)
        if number is not None:
            tensors.append(int32_tensor(name, number))
    for name in ("guidance_scale", "strength"):
        value = getattr(request, name)
        if value is not None:
            tensors.append(float32_tensor(name, value))
    if request.seed is not None:
        tensors.append(uint64_tensor("seed", request.seed))
    if request.image is not None:
        tensors.append(bytes_tensor("image", request.image))
    if isinstance(request.frames, Attachment):
        tensors.append(Tensor("frames", "BYTES", (0,), b""))  # the request is checked; a task has them in memory
    elif request.frames is not None:
        # They have the format of the tensor: hundreds of megabytes are not copied.
        tensors.append(Tensor("frames", "BYTES", (_count_frames(request.frames),), request.frames))
    for tensor in tensors:
        if not card.has_input(tensor.name):
            raise UnsupportedOption(
                f"This model does not support '{_PARAM_NAMES.get(tensor.name, tensor.name)}'.", param=tensor.name
            )
    return tensors


def _check_limits(request: GenerateVideo, card: ModelCard) -> None:
    """Raise `UnsupportedOption` for what the model's parameters exclude."""
    limits, sizes = card.video, card.image
    size = (request.width, request.height)
    if size[0] is not None and size[1] is not None and not sizes.supports_size(size[0], size[1]):
        raise UnsupportedOption(
            f"This model does not generate videos of {format_size((size[0], size[1]))}; supported: "
            f"{sizes.describe_sizes()}.",
            param="width",
        )
    fps = request.fps or limits.default_fps
    if fps > limits.max_fps:
        raise UnsupportedOption(f"'fps' must be at most {limits.max_fps} for this model.", param="fps")
    count = request.num_frames
    if count is not None and count > limits.max_num_frames:
        longest = limits.seconds(limits.max_num_frames, fps)
        raise UnsupportedOption(
            f"This model generates up to {limits.max_num_frames} frames, {longest:g} seconds at {fps} frames a second.",
            param="num_frames",
        )
    if sizes.max_steps is not None and (request.steps or 0) > sizes.max_steps:
        raise UnsupportedOption(f"'steps' must be at most {sizes.max_steps} for this model.", param="steps")
    if request.image is not None and request.frames is not None:
        raise UnsupportedOption("A video starts either from a picture or from another video.", param="frames")
    for name, phrase in _REFERENCE_PHRASES.items():
        if getattr(request, name) is not None and name not in limits.references:
            raise UnsupportedOption(f"This model does not {phrase}.", param=name)
    if limits.requires_image and request.image is None:
        raise InvalidRequest(
            "This model generates videos from a picture alone: send one as 'input_reference'.", param="image"
        )
    _check_strength(request, request.steps or sizes.default_steps)


def _check_strength(request: GenerateVideo, steps: int | None) -> None:
    """Raise `InvalidRequest` if the strength leaves none of `steps`, as the schedulers of the backend count.

    Where the number of steps is not known, the model checks it.
    """
    strength = _DEFAULT_STRENGTH if request.strength is None and request.frames is not None else request.strength
    if strength is not None and steps is not None and int(steps * strength + _ROUNDING) < 1:
        raise InvalidRequest(
            f"A 'strength' of {strength:g} leaves none of the {steps} steps; increase 'strength' or 'steps'.",
            param="strength",
        )


def _count_frames(frames: bytes) -> int:
    """Return the number of frames. Raises `InvalidRequest` if the last one is cut off."""
    count = at = 0
    while at < len(frames):
        at += 4 + int.from_bytes(frames[at : at + 4], "little")
        count += 1
    if at != len(frames):
        raise InvalidRequest("The frames of the video are damaged.", param="frames")
    return count


async def decode(
    request: GenerateVideo, responses: AsyncIterator[InferResponse], card: ModelCard
) -> AsyncGenerator[VideoEvent]:
    """Yield progress and the video. Previews are left out. Raises `ModelFailed` unless there is one MP4 file."""
    found = False
    async for response in responses:
        for fraction in response.float32s("progress"):
            yield Progress(min(max(0.0, fraction), 1.0))  # in this order, since every comparison with NaN is false
        for data in response.bytes_values("video"):
            if found:
                raise ModelFailed("The model returned more than one video.")
            if data[4:8] != b"ftyp":
                raise ModelFailed("The model returned data that is not an MP4 file.")
            found = True
            numbers = {name: next(iter(response.int32s(name)), None) for name in SIZE_AND_LENGTH}
            yield Video(data=data, seed=next(iter(response.uint64s("seed")), None), **numbers)
    if not found:
        raise ModelFailed("The model returned no video.")


_CODEC = SingleRequestCodec(encode, decode, explain)
SIGNATURE = Signature(inputs=INPUTS, outputs=OUTPUTS, codecs={GenerateVideo.operation: _CODEC})
