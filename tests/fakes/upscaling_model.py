"""Scripted upscaling models: the picture of the request with each pixel repeated."""

import asyncio
import io
from collections.abc import AsyncIterator

from PIL import Image, UnidentifiedImageError
from tritonclient.grpc import service_pb2 as pb

from tests.fakes.image_model import one_value, tensor_response
from tests.fakes.scripted_model import EnlargePicture, Fail, ScriptedModel
from tests.fakes.triton_messages import InferCall


async def upscale_image(
    model: ScriptedModel, call: InferCall, step: EnlargePicture
) -> AsyncIterator[pb.ModelInferResponse | Fail]:
    """Yield the progress of each step, then the picture."""
    try:
        picture = Image.open(io.BytesIO(call.tensors["image"][0]))
    except UnidentifiedImageError:
        yield Fail("[invalid_value:image] This is no picture.")
        return
    for at in range(1, step.steps + 1):
        await asyncio.sleep(step.pause)
        yield tensor_response(model, call, progress=("FP32", at / step.steps))
    scale = int(one_value(call, "scale", 2))
    large = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    file = io.BytesIO()
    large.save(file, one_value(call, "output_format", "png").upper(), quality=int(one_value(call, "quality", 90)))
    for number in range(step.num_pictures):
        yield tensor_response(
            model,
            call,
            final=number == step.num_pictures - 1,
            image=("BYTES", b"no picture" if step.is_garbled else file.getvalue()),
            width=("INT32", large.width),
            height=("INT32", large.height),
        )
    if not step.num_pictures:
        yield tensor_response(model, call, final=True)
