"""Scripted image models: one colour for each seed, in the requested size, number and format."""

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor

from tests.fakes.scripted_model import DrawImages, Fail, ScriptedModel
from tests.fakes.triton_messages import InferCall

DEFAULT_SEED = 4711
"""The seed of a request that has none."""


def color_of_seed(seed: int) -> tuple[int, int, int]:
    return (seed * 40 % 256, seed * 90 % 256, 200)


def one_value(call: InferCall, name: str, default: Any) -> Any:
    value = call.tensors.get(name, [default])[0]
    return value.decode() if isinstance(value, bytes) else value


def _fault(call: InferCall) -> str | None:
    """Return the error of the backend for invalid input images."""
    for name in ("width", "height"):
        if int(one_value(call, name, 128)) > MAX_SIDE:
            return f"[unsupported_option:{name}] No side is longer than {MAX_SIDE} pixels."
    try:
        images = [ImageOps.exif_transpose(Image.open(io.BytesIO(data))) for data in call.tensors.get("image", [])]
        masks = [Image.open(io.BytesIO(data)) for data in call.tensors.get("mask", [])]
    except UnidentifiedImageError:
        return "[invalid_value:image] This is no picture."
    if len(images) > 1:
        return "[unsupported_option:image] This model edits one picture at a time."
    if masks and masks[0].size != images[0].size:
        return "[invalid_value:mask] The mask has another size than the picture."
    return None


def tensor_response(
    model: ScriptedModel, call: InferCall, final: bool = False, **outputs: tuple[str, Any]
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = final
    for name, (kind, value) in outputs.items():
        response.outputs.add(name=name, datatype=kind, shape=[1])
        packed = {"FP32": "<f", "INT32": "<i", "UINT64": "<Q"}
        raw = (
            serialize_byte_tensor(np.array([value], dtype=object)).item()
            if kind == "BYTES"
            else struct.pack(packed[kind], value)
        )
        response.raw_output_contents.append(raw)
    return response


MAX_SIDE = 4096
"""Most pixels of a side. Models generate the sizes that they declare, and none is larger."""


def _encoded(call: InferCall, seed: int) -> bytes:
    file = io.BytesIO()
    size = (int(one_value(call, "width", 128)), int(one_value(call, "height", 128)))
    form = one_value(call, "output_format", "png")
    Image.new("RGB", size, color_of_seed(seed)).save(file, form.upper(), quality=int(one_value(call, "quality", 90)))
    return file.getvalue()


async def generate_images(
    model: ScriptedModel, call: InferCall, step: DrawImages
) -> AsyncIterator[pb.ModelInferResponse | Fail]:
    """Yield the progress of each step, evenly distributed previews, then the images."""
    if fault := _fault(call):
        yield Fail(fault)
        return
    count, seed = int(one_value(call, "num_images", 1)), int(one_value(call, "seed", DEFAULT_SEED))
    previews = int(one_value(call, "partial_images", 0))
    shown = 0
    for at in range(1, step.steps + 1):
        await asyncio.sleep(step.pause)
        yield tensor_response(model, call, progress=("FP32", at / step.steps))
        while shown < previews and at * (previews + 1) >= step.steps * (shown + 1):
            for index in range(count):
                data = _encoded(call, seed + index)
                position: dict[str, Any] = {"index": ("INT32", index), "partial": ("INT32", shown)}
                yield tensor_response(model, call, image=("BYTES", data), **position)
            shown += 1
    for index in range(count - step.num_missing):
        yield tensor_response(
            model,
            call,
            final=index == count - 1,
            image=("BYTES", b"no picture" if step.is_garbled else _encoded(call, seed + index)),
            seed=("UINT64", seed + index),
            index=("INT32", index),
        )
    if step.num_missing:
        yield tensor_response(model, call, final=True)
