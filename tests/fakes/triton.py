"""A real gRPC server that speaks Triton's protocol and plays scripted models."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tests.fakes.script import EMBEDDING_INPUTS, INPUTS, SAMPLING, SPEECH_INPUTS, Close, Echo, Fail, Model, Pause, Say


def _wire_type(kind: int) -> str:
    return "BYTES" if kind == config_pb.TYPE_STRING else config_pb.DataType.Name(kind).removeprefix("TYPE_")


_BAD = grpc.StatusCode.INVALID_ARGUMENT
_WIRE_TYPES = {name: _wire_type(kind) for name, kind, _ in INPUTS + SPEECH_INPUTS + EMBEDDING_INPUTS}


@dataclass(slots=True)
class Call:
    """One request as it arrived, and when its caller gave it up (`time.monotonic`), if it did."""

    model: str
    id: str
    metadata: dict[str, str]
    parameters: dict[str, Any]
    tensors: dict[str, list[Any]]
    cancelled_at: float | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def prompt(self) -> str:
        if "audio" in self.tensors or "text" in self.tensors or "token_counts" in self.tensors:
            return ""
        if "token_ids" in self.tensors:
            return f"<{','.join(map(str, self.tensors['token_ids']))}>"
        return str(self.tensors["text_input"][0].decode())

    @property
    def sampling(self) -> dict[str, Any]:
        return dict(json.loads(self.tensors.get("sampling_parameters", [b"{}"])[0]))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.tensors.get(name, [default])[0])


class FakeTriton(rpc.GRPCInferenceServiceServicer):
    """`calls` remembers every inference; `loaded` names the models that are; `frozen` keeps it from answering
    questions about itself. Runs on the caller's loop."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = {model.name: model for model in models}
        self.loaded = set(self.models)
        self.ready = True
        self.frozen = False
        self.calls: list[Call] = []
        self.active = 0
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> "FakeTriton":
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        rpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def call(self, model: str, after: int = 0, seconds: float = 2.0) -> Call:
        """The first call of `model` beyond the first `after` calls of all, as soon as it has arrived."""
        async with asyncio.timeout(seconds):
            while True:
                for call in self.calls[after:]:
                    if call.model == model:
                        return call
                await asyncio.sleep(0.002)

    async def gives_up(self, model: str, after: int = 0, seconds: float = 0.2) -> Call:
        """The same call, once its caller has given it up. Raises `TimeoutError` where that takes longer."""
        call = await self.call(model, after)
        async with asyncio.timeout(seconds):
            await call.ended.wait()
        assert call.cancelled_at is not None, f"{model} came to its end"
        return call

    async def _model(self, name: str, context: grpc.aio.ServicerContext) -> Model:
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
                described.add(name=tensor.name, datatype=_wire_type(tensor.data_type), shape=tensor.dims)
        return answer

    async def ModelStreamInfer(self, requests, context):  # noqa: N802
        true_status = ("triton_grpc_error", "true") in [(k, v) for k, v in context.invocation_metadata() or ()]
        async for request in requests:
            call = Call(
                request.model_name,
                request.id,
                dict(context.invocation_metadata() or ()),
                {key: value.bool_param for key, value in request.parameters.items()},
                _tensors(request),
            )
            self.calls.append(call)
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

    async def _play(self, request: pb.ModelInferRequest, call: Call) -> AsyncIterator[pb.ModelInferResponse | Fail]:
        if call.model not in self.loaded:
            yield Fail(f"Request for unknown model: '{call.model}' is not found", grpc.StatusCode.NOT_FOUND)
            return
        if fault := _fault(request, call):
            yield Fail(fault, _BAD)
            return
        model = self.models[call.model]
        if model.embedding:
            yield _vectors(model, call)
            return
        said: list[Say] = []
        stream = call.flag("stream") or model.speech
        for step in _spelled(model.script, call.prompt):
            match step:
                case Pause(None):
                    await asyncio.Event().wait()
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Fail():
                    yield step
                    return
                case Close():
                    return
                case Say():
                    said.append(step)
                    if stream:
                        final = _finished(said) and not model.empty_final
                        yield _response(model, call, [step], final)
        if not stream:
            yield _response(model, call, said, not model.empty_final)
        if model.empty_final and call.parameters.get("triton_enable_empty_final_response"):
            response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
            response.parameters["triton_final_response"].bool_param = True
            yield response


def _joined(said: list[Say], what: str) -> list[str]:
    """For each answer, `what` of all that was said so far."""
    rows = [(value,) if isinstance(value, str) else value for value in (getattr(say, what) for say in said)]
    return ["".join(parts) for parts in itertools.zip_longest(*rows, fillvalue="")]


def _finished(said: list[Say]) -> bool:
    ends = _joined(said, "finish")
    return all(ends) and len(ends) == len(_joined(said, "text"))


def _spelled(script, prompt: str):
    for step in script:
        if not isinstance(step, Echo):
            yield step
            continue
        for at in range(0, len(prompt), step.size):
            yield Say(prompt[at : at + step.size], "stop" if at + step.size >= len(prompt) else "")
            yield Pause(step.pause)


def _tensors(request: pb.ModelInferRequest) -> dict[str, list[Any]]:
    def values(kind: str, raw: bytes) -> list[Any]:
        if kind == "BYTES":
            return list(deserialize_bytes_tensor(raw))
        return list(np.frombuffer(raw, {"BOOL": np.bool_, "INT32": np.int32, "FP32": np.float32}[kind]))

    return {
        tensor.name: values(tensor.datatype, raw)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def _fault(request: pb.ModelInferRequest, call: Call) -> str | None:
    """What Triton and the backend refuse about any request of this signature."""
    for tensor in request.inputs:
        if tensor.name not in _WIRE_TYPES:
            return f"[request id: {call.id}] unexpected inference input '{tensor.name}' for model '{call.model}'"
        if tensor.datatype != _WIRE_TYPES[tensor.name]:
            return f"inference input '{tensor.name}' data-type is '{tensor.datatype}', model '{call.model}' disagrees"
        if tensor.name not in ("token_ids", "image", "audio", "text", "token_counts") and list(tensor.shape) != [1]:
            return f"unexpected shape for input '{tensor.name}'. Expected [1], got {list(tensor.shape)}"
    if "dimensions" in call.tensors:
        return "[unsupported_option:dimensions] The vectors of this model have 2 numbers."
    if "audio" in call.tensors or "text" in call.tensors or "token_counts" in call.tensors:
        return None
    if ("text_input" in call.tensors) == ("token_ids" in call.tensors):
        return "[invalid_value:text_input] There is neither text_input nor token_ids."
    if unknown := set(call.sampling) - SAMPLING:
        return f"[unsupported_option:sampling_parameters] There is no option {sorted(unknown)[0]}."
    return None


def _vectors(model: Model, call: Call) -> pb.ModelInferResponse:
    """Two numbers for each text, or for each list of token ids, and how many tokens there are."""
    texts = [text.decode() for text in call.tensors.get("text", [])]
    rows = [[len(text), text.count("e")] for text in texts] or [[n, 0] for n in call.tensors["token_counts"]]
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = True
    response.outputs.add(name="embedding", datatype="FP32", shape=[len(rows), 2])
    response.raw_output_contents.append(np.array(rows, np.float32).tobytes())
    response.outputs.add(name="num_tokens", datatype="INT32", shape=[len(rows)])
    response.raw_output_contents.append(np.array([row[0] for row in rows], np.int32).tobytes())
    return response


def _response(model: Model, call: Call, said: list[Say], final: bool) -> pb.ModelInferResponse:
    """The outputs that `call` asked for, over all of `said`."""
    texts, ends = _joined(said, "text"), _joined(said, "finish")
    ends += [""] * (len(texts) - len(ends))
    if not model.speech and not call.flag("exclude_input_in_output", call.flag("stream")):
        texts = [call.prompt + text for text in texts]
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = final

    def add(name: str, kind: str, values: list[Any]) -> None:
        response.outputs.add(name=name, datatype=kind, shape=[len(values)])
        if kind == "BYTES":
            raw = serialize_byte_tensor(np.array([value.encode() for value in values], dtype=object)).item()
        else:
            raw = np.array(values, np.uint32).tobytes()
        response.raw_output_contents.append(raw)

    add("text" if model.speech else "text_output", "BYTES", texts)
    if call.flag("return_finish_reason"):
        add("finish_reason", "BYTES", ends)
    if call.flag("return_logprobs"):
        add("logprobs", "BYTES", ["".join(say.logprobs for say in said)])
    if call.flag("return_num_input_tokens"):
        add("num_input_tokens", "UINT32", [model.num_input_tokens])
    if call.flag("return_num_output_tokens"):
        add("num_output_tokens", "UINT32", [sum(say.tokens for say in said)])
    return response
