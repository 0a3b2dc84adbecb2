"""A real gRPC server that speaks Triton's protocol and plays scripted models."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from tests.fakes import image_model, listening_model, speech_model, triton_messages, upscaling_model, video_model
from tests.fakes.scripted_model import (
    Close,
    DrawImages,
    EnlargePicture,
    Fail,
    FilmVideo,
    Listen,
    Pause,
    RawOutputs,
    Say,
    ScriptedModel,
    SpeakSentences,
)
from tests.fakes.triton_messages import InferCall

_BAD = grpc.StatusCode.INVALID_ARGUMENT
_RESTRICTED = "triton-grpc-protocol-tritonic"


class FakeTriton(rpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient has no types
    """`calls` are the inference requests of clients, `probes` those of the gateway itself. `loaded` are the names of
    loaded models. While `frozen`, it does not answer RepositoryIndex. With a `secret`, RepositoryIndex requires it.
    Runs on the caller's event loop."""

    def __init__(
        self, models: Iterable[ScriptedModel], socket: Path | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.models = {model.name: model for model in models}
        self.loaded = set(self.models)
        self.ready = True
        self.frozen = False
        self.secret = ""
        self.calls: list[InferCall] = []
        self.probes: list[InferCall] = []
        self.active = 0
        self.port = port
        self._host = host
        self._server: grpc.aio.Server | None = None
        self._socket = f"unix:{socket}" if socket else None

    @property
    def url(self) -> str:
        return self._socket or f"{self._host}:{self.port}"

    async def start(self) -> "FakeTriton":
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        rpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(self._socket or f"{self._host}:{self.port}")
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def call(self, model: str, after: int = 0, seconds: float = 30.0) -> InferCall:
        """Return the first call of `model` after the first `after` calls of all models, as soon as it arrives."""
        async with asyncio.timeout(seconds):
            while True:
                for call in self.calls[after:]:
                    if call.model == model:
                        return call
                await asyncio.sleep(0.002)

    async def cancelled_call(self, model: str, after: int = 0, seconds: float = 30.0) -> InferCall:
        """Return the same call once its caller has cancelled it. Raises `TimeoutError` after `seconds`."""
        call = await self.call(model, after)
        async with asyncio.timeout(seconds):
            await call.ended.wait()
        assert call.cancelled_at is not None, f"{model} came to its end"
        return call

    async def _model(self, name: str, context: grpc.aio.ServicerContext) -> ScriptedModel:
        if name not in self.loaded:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    async def ServerLive(self, request, context):  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request, context):  # noqa: N802
        return pb.ServerReadyResponse(ready=self.ready)

    async def ServerMetadata(self, request, context):  # noqa: N802
        return pb.ServerMetadataResponse(name="triton", version="2.51.0", extensions=["model_repository"])

    async def ModelReady(self, request, context):  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name in self.loaded)

    async def RepositoryIndex(self, request, context):  # noqa: N802
        while self.frozen:
            await asyncio.sleep(0.02)
        if self.secret and dict(context.invocation_metadata() or ()).get(_RESTRICTED) != self.secret:
            words = f"This protocol is restricted, expecting header '{_RESTRICTED}'"
            await context.abort(grpc.StatusCode.UNAVAILABLE, words)
        index = pb.RepositoryIndexResponse()
        for name in self.models:
            if name in self.loaded:
                index.models.add(name=name, version="1", state="READY")
            elif not request.ready:
                index.models.add(name=name, version="1", state="UNAVAILABLE", reason="unloaded")
        return index

    async def RepositoryModelLoad(self, request, context):  # noqa: N802
        if request.model_name not in self.models:
            await context.abort(_BAD, f"failed to load '{request.model_name}', no version is available")
        self.loaded.add(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request, context):  # noqa: N802
        self.loaded.discard(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelConfig(self, request, context):  # noqa: N802
        return pb.ModelConfigResponse(config=(await self._model(request.name, context)).config())

    async def ModelMetadata(self, request, context):  # noqa: N802
        config = (await self._model(request.name, context)).config()
        answer = pb.ModelMetadataResponse(name=config.name, versions=["1"], platform=config.backend)
        for tensors, described in ((config.input, answer.inputs), (config.output, answer.outputs)):
            for tensor in tensors:
                described.add(name=tensor.name, datatype=triton_messages.wire_type(tensor.data_type), shape=tensor.dims)
        return answer

    async def ModelStreamInfer(self, requests, context):  # noqa: N802
        true_status = ("triton_grpc_error", "true") in [(k, v) for k, v in context.invocation_metadata() or ()]
        async for request in requests:
            call = InferCall(
                request.model_name,
                request.id,
                dict(context.invocation_metadata() or ()),
                {key: value.bool_param for key, value in request.parameters.items()},
                triton_messages.parse_tensors(request),
            )
            (self.probes if call.id.startswith("probe/") else self.calls).append(call)
            self.active += 1
            try:
                async for response in self._play(request, call):
                    if isinstance(response, Fail) and true_status:
                        await context.abort(response.status, response.message)
                    if isinstance(response, Fail):
                        yield pb.ModelStreamInferResponse(
                            error_message=response.message, infer_response=pb.ModelInferResponse(id=call.id)
                        )
                    else:
                        yield pb.ModelStreamInferResponse(infer_response=response)
            except (asyncio.CancelledError, GeneratorExit):
                call.cancelled_at = time.monotonic()
                raise
            finally:
                self.active -= 1
                call.ended.set()

    async def _play(
        self, request: pb.ModelInferRequest, call: InferCall
    ) -> AsyncIterator[pb.ModelInferResponse | Fail]:
        if call.model not in self.loaded:
            yield Fail(f"Request for unknown model: '{call.model}' is not found", grpc.StatusCode.NOT_FOUND)
            return
        model = self.models[call.model]
        if fault := triton_messages.request_error(request, call, model.adapters):
            yield Fail(fault, _BAD)
            return
        if fault := triton_messages.model_error(model, call):
            yield Fail(fault, _BAD)
            return
        if model.is_embedding_model:
            yield triton_messages.embedding_response(model, call)
            return
        responses: list[Say] = []
        stream = call.flag("stream") or model.is_transcription_model
        nothing = [Say("", "length", tokens=0)] if call.sampling.get("max_tokens") == 0 else None
        for step in nothing or triton_messages.expand_script(model.script, call):
            match step:
                case Pause(None):
                    await asyncio.Event().wait()
                case Pause(float() | int() as seconds):
                    await asyncio.sleep(seconds)
                case Fail():
                    yield step
                    return
                case Close():
                    return
                case RawOutputs():
                    yield triton_messages.raw_response(model, call, step)
                    return
                case DrawImages():
                    async for response in image_model.generate_images(model, call, step):
                        yield response
                case FilmVideo():
                    async for response in video_model.generate_video(model, call, step):
                        yield response
                    return
                case EnlargePicture():
                    async for response in upscaling_model.upscale_image(model, call, step):
                        yield response
                    return
                case SpeakSentences():
                    async for response in speech_model.speak(model, call, step):
                        yield response
                    return
                case Listen():
                    async for response in listening_model.transcribe(model, call, step):
                        yield response
                    return
                case Say():
                    responses.append(step)
                    if stream:
                        final = triton_messages.is_finished(responses) and not model.sends_empty_final
                        yield triton_messages.text_response(model, call, [step], final)
        if not stream and not model.is_image_model:
            yield triton_messages.text_response(model, call, responses, not model.sends_empty_final)
        if model.sends_empty_final and call.parameters.get("triton_enable_empty_final_response"):
            response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
            response.parameters["triton_final_response"].bool_param = True
            yield response
