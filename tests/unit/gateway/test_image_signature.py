"""Pictures as tensors, there and back."""

import struct
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import InvalidRequest, ModelFailed, UnsupportedOption
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage, Image, PartialImage, Progress, gather
from gateway.signatures import image
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse
from tests.unit.gateway.model_cards import card_of

ALL = {
    **dict.fromkeys(("prompt", "negative_prompt", "output_format", "image", "mask"), "BYTES"),
    **dict.fromkeys(("width", "height", "steps", "num_images", "quality", "partial_images"), "INT32"),
    **{"guidance_scale": "FP32", "strength": "FP32", "seed": "UINT64"},
}


def config(*, without: tuple[str, ...] = (), **parameters: str) -> ModelConfig:
    inputs = {name: kind for name, kind in ALL.items() if name not in without}
    return ModelConfig("m", parameters, inputs, {"image": "BYTES"}, b"")


def encoded(request: GenerateImage, model: ModelConfig | None = None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    tensors = image.encode(request, card_of(model or config(), "generate_image"))
    return {tensor.name: (tensor.datatype, tensor.shape, tensor.data) for tensor in tensors}


def test_tensors_follow_the_contract() -> None:
    request = EditImage(
        model="m",
        prompt="p",
        negative_prompt="not",
        n=2,
        width=64,
        height=32,
        steps=4,
        guidance_scale=1.5,
        seed=2**64 - 1,
        output_format="webp",
        quality=80,
        partial_images=1,
        images=(b"\x00\xff", b"b"),
        mask=b"m",
        strength=0.5,
    )
    tensors = encoded(request)
    assert {name: kind for name, (kind, _, _) in tensors.items()} == ALL
    assert tensors["image"] == ("BYTES", (2,), struct.pack("<I2sI1s", 2, b"\x00\xff", 1, b"b"))
    assert tensors["seed"] == ("UINT64", (1,), b"\xff" * 8)
    assert tensors["strength"] == ("FP32", (1,), struct.pack("<f", 0.5))
    assert all(shape == (1,) for name, (_, shape, _) in tensors.items() if name != "image")


@pytest.mark.parametrize("name", ["negative_prompt", "strength", "mask", "partial_images", "quality", "guidance_scale"])
def test_options_without_a_tensor_are_refused_by_name(name: str) -> None:
    options: dict[str, Any] = {name: {"negative_prompt": "x", "mask": b"x", "strength": 0.5}.get(name, 1)}
    request = EditImage(model="m", prompt="p", images=(b"x",), **options)
    with pytest.raises(UnsupportedOption) as refusal:
        image.encode(request, card_of(config(without=(name,))))
    assert refusal.value.param == name


def test_steps_and_images_have_limits() -> None:
    limited = config(max_steps="8", max_images="2")
    beyond: list[dict[str, Any]] = [{"steps": 9}, {"n": 3}]
    for options in beyond:
        with pytest.raises(UnsupportedOption):
            image.encode(GenerateImage(model="m", prompt="p", **options), card_of(limited, "generate_image"))
    assert encoded(GenerateImage(model="m", prompt="p", steps=8, n=2), limited)["steps"][2] == struct.pack("<i", 8)


def test_failures_name_the_fields_of_callers() -> None:
    for tensor, field in (("num_images", "n"), ("width", "size"), ("quality", "output_compression"), ("mask", "mask")):
        assert image.explain(InvalidRequest("x", param=tensor)).param == field


KINDS = {"progress": ("FP32", "<f"), "seed": ("UINT64", "<Q"), "index": ("INT32", "<i"), "partial": ("INT32", "<i")}


def response(**outputs: Any) -> InferResponse:
    message = pb.ModelInferResponse()
    for name, value in outputs.items():
        if isinstance(value, bytes):
            message.outputs.add(name=name, datatype="BYTES", shape=[1])
            message.raw_output_contents.append(struct.pack("<I", len(value)) + value)
        else:
            kind, form = KINDS[name]
            message.outputs.add(name=name, datatype=kind, shape=[1])
            message.raw_output_contents.append(struct.pack(form, value))
    return InferResponse(message)


async def decoded(n: int, *responses: InferResponse) -> list[Any]:
    async def arriving() -> AsyncGenerator[InferResponse]:
        for each in responses:
            yield each

    request = GenerateImage(model="m", prompt="p", n=n)
    return [event async for event in image.decode(request, arriving(), card_of(config()))]


async def test_events() -> None:
    events = await decoded(
        2,
        response(progress=0.5),
        response(image=b"early", index=1, partial=0),
        response(image=b"two", seed=8, index=1),
        response(image=b"one", seed=2**64 - 1, index=0),
    )
    assert events == [
        *(Progress(0.5), PartialImage(1, 0, b"early"), Image(1, b"two", 8), Image(0, b"one", 2**64 - 1)),
    ]

    async def again() -> AsyncGenerator[Any]:
        for event in events:
            yield event

    assert [each.data for each in await gather(again())] == [b"one", b"two"]


async def test_images_without_an_index_are_counted() -> None:
    assert await decoded(2, response(image=b"a"), response(image=b"b")) == [Image(0, b"a", None), Image(1, b"b", None)]


async def test_unexpected_images_are_failures() -> None:
    with pytest.raises(ModelFailed, match="1 images of 2"):
        await decoded(2, response(image=b"a"))
    with pytest.raises(ModelFailed, match="image 1"):
        await decoded(1, response(image=b"a"), response(image=b"b"))
    with pytest.raises(ModelFailed, match="image 0"):
        await decoded(1, response(image=b"a", index=0), response(image=b"b", index=0))
