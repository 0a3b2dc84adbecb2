"""Scripted models that swap faces: they answer with the target, and three faces."""

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

from PIL import Image
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb

from tests.fakes.image_model import one_value, tensor_response
from tests.fakes.scripted_model import Fail, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.fakes.triton_messages import InferCall

INPUTS = {"source": config_pb.TYPE_STRING, "target": config_pb.TYPE_STRING}
OPTIONAL_INPUTS = {"output_format": config_pb.TYPE_STRING, "quality": config_pb.TYPE_INT32}
OUTPUTS = {
    "progress": config_pb.TYPE_FP32,
    "image": config_pb.TYPE_STRING,
    **dict.fromkeys(("width", "height", "num_faces"), config_pb.TYPE_INT32),
}


@dataclass(frozen=True, slots=True)
class FaceSwapModel(ScriptedModel):
    """Sends `steps` times its progress with a pause before each, then the target `num_images` times, or `failure`."""

    steps: int = 3
    pause: float = 0.0
    num_images: int = 1
    num_faces: int = 3
    failure: str | None = None

    def config(self) -> config_pb.ModelConfig:
        """Return the `config.pbtxt` that the builder would write."""
        config = config_pb.ModelConfig(name=self.name, backend="face_swap")
        config.model_transaction_policy.decoupled = True
        for name, kind in (INPUTS | OPTIONAL_INPUTS).items():
            config.input.add(name=name, data_type=kind, dims=[1], optional=name in OPTIONAL_INPUTS)
        for name, kind in OUTPUTS.items():
            config.output.add(name=name, data_type=kind, dims=[1])
        for key, value in {"signature": "face_swap", "operations": '["swap_face"]', **self.parameters}.items():
            config.parameters[key].string_value = value or ""
        return config


class FaceSwapTriton(FakeTriton):
    """A fake Triton whose models may be `FaceSwapModel`."""

    async def _play(
        self, request: pb.ModelInferRequest, call: InferCall
    ) -> AsyncIterator[pb.ModelInferResponse | Fail]:
        model = self.models[call.model]
        played = swap_face(model, call) if isinstance(model, FaceSwapModel) else super()._play(request, call)
        async for response in played:
            yield response


async def swap_face(model: FaceSwapModel, call: InferCall) -> AsyncIterator[pb.ModelInferResponse | Fail]:
    """Yield the responses of a model."""
    for at in range(1, model.steps + 1):
        await asyncio.sleep(model.pause)
        yield tensor_response(model, call, progress=("FP32", at / model.steps))
    if model.failure is not None:
        yield Fail(model.failure)
        return
    target = Image.open(io.BytesIO(call.tensors["target"][0]))
    file = io.BytesIO()
    target.save(file, one_value(call, "output_format", "png").upper(), quality=int(one_value(call, "quality", 90)))
    for _ in range(model.num_images):
        yield tensor_response(
            model,
            call,
            image=("BYTES", file.getvalue()),
            width=("INT32", target.width),
            height=("INT32", target.height),
            num_faces=("INT32", model.num_faces),
        )
    yield tensor_response(model, call, final=True)
