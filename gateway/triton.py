"""One Triton endpoint over gRPC: health, discovery, and a stream of responses to one request.

Knows the KServe protocol (https://github.com/kserve/open-inference-protocol) and nothing of what the tensors mean.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from gateway.errors import GatewayError, ModelFailed, ModelTimeout
from gateway.tensors import Response, Tensor
from gateway.triton_failures import gateway_error

_END_SECONDS = 1.0
"""How long a server may take to end a stream after its last response."""

_STOP_SECONDS = 5.0
"""How long a server may take to stop a request that nobody waits for."""

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that comes back must be found at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Else gRPC reads ahead as much as the connection carries: 5 MB for every client that does not read its stream.
    # Without, it is 64 KB, and more only while a larger message is being read (docs/log.md).
    ("grpc.http2.bdp_probe", 0),
]


@dataclass(frozen=True, slots=True)
class Stop:
    """How a request is stopped where closing its stream does not reach it: asked of `model` under the same id."""

    model: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A model of the repository: `state` is READY, LOADING, UNLOADING or UNAVAILABLE; `reason` says why not ready."""

    name: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What `config.pbtxt` says of a model: its parameters and its tensors (name to datatype).

    A `max_batch_size` above 0 puts a batch dimension before all others. `decoupled` models may send many responses.
    `steps` are the models that an ensemble is made of.
    """

    name: str
    parameters: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    serialized: bytes
    max_batch_size: int = 0
    decoupled: bool = True
    steps: tuple[str, ...] = ()


class Triton:
    """One endpoint. Create it inside a running event loop."""

    def __init__(self, url: str) -> None:
        """`url` is `host:port` of the gRPC service."""
        self.url = url
        self.in_flight = 0
        self.heard = 0
        """Messages that models have sent."""
        self._stopping: set[asyncio.Task[None]] = set()
        self._channel = grpc.aio.insecure_channel(url, options=_CHANNEL_OPTIONS)
        self._stub = rpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connection; streams in flight are cancelled."""
        for stopping in tuple(self._stopping):
            stopping.cancel()
        await self._channel.close()

    async def index(self, timeout: float = 5.0) -> list[IndexEntry]:
        """Models of the repository with their states. Raises `GatewayError` when the server does not answer."""
        try:
            answer = await self._stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise gateway_error(error.code(), error.details()) from None
        return [IndexEntry(model.name, model.state, model.reason) for model in answer.models]

    async def config(self, name: str, timeout: float = 5.0) -> ModelConfig:
        """The configuration of a loaded model. Raises `GatewayError` when there is none."""
        try:
            answer = await self._stub.ModelConfig(pb.ModelConfigRequest(name=name), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise gateway_error(error.code(), error.details()) from None
        config = answer.config
        return ModelConfig(
            name=config.name,
            parameters={key: value.string_value for key, value in config.parameters.items()},
            inputs={tensor.name: _datatype(tensor.data_type) for tensor in config.input},
            outputs={tensor.name: _datatype(tensor.data_type) for tensor in config.output},
            serialized=config.SerializeToString(deterministic=True),
            max_batch_size=config.max_batch_size,
            decoupled=config.model_transaction_policy.decoupled,
            steps=tuple(step.model_name for step in config.ensemble_scheduling.step),
        )

    async def stream(
        self, model: str, tensors: Sequence[Tensor], *, request_id: str, timeout: float, stop: Stop | None = None
    ) -> AsyncGenerator[Response]:
        """Ask a model, and yield its responses until the one with the final flag.

        Closing the iterator cancels the request in the server, and asks for `stop` where that is given. Raises a
        `GatewayError` when the request fails, when nothing arrives for `timeout` seconds, and when the stream ends
        before its final response.
        """
        request = _request(model, tensors, request_id)
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        call = self._stub.ModelStreamInfer()
        self.in_flight += 1
        ended = False
        try:
            await call.write(request)
            await call.done_writing()
            while True:
                async with asyncio.timeout(timeout):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    raise await _premature(call)
                self.heard += 1
                if message.error_message:
                    ended = True
                    await _end(call)
                    raise gateway_error(None, message.error_message)
                answer = message.infer_response
                if answer.outputs:
                    yield Response(answer)
                if answer.parameters["triton_final_response"].bool_param:
                    ended = True
                    await _end(call)
                    return
        except TimeoutError:
            raise ModelTimeout(f"The model gave no answer for {timeout:g} seconds.") from None
        except grpc.aio.AioRpcError as error:
            raise gateway_error(error.code(), error.details()) from None
        except asyncio.InvalidStateError:
            # The call ended while the request was being written; its status says why.
            raise await _premature(call) from None
        finally:
            self.in_flight -= 1
            call.cancel()
            if stop and not ended:
                stopping = asyncio.create_task(self._stop(stop, request_id))
                self._stopping.add(stopping)
                stopping.add_done_callback(self._stopping.discard)

    async def _stop(self, stop: Stop, request_id: str) -> None:
        call = self._stub.ModelStreamInfer()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await call.write(_request(stop.model, stop.tensors, request_id))
                await call.done_writing()
                while await call.read() is not grpc.aio.EOF:
                    pass
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the server is slow or gone
        finally:
            call.cancel()


def _request(model: str, tensors: Sequence[Tensor], request_id: str) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name=model,
        id=request_id,
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in tensors
        ],
        raw_input_contents=[t.data for t in tensors],
    )


async def _end(call: Any) -> None:
    """Let the server end the stream. A stream that is cancelled between its last response and its end is never let go
    by Triton (2.51), whose model can then not be unloaded.
    """
    with suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout(_END_SECONDS):
            await call.read()


async def _premature(call: Any) -> GatewayError:
    """Why a stream ended before its final response."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return ModelFailed("The server closed the stream before the answer was complete.")
    return gateway_error(code, await call.details())


def _datatype(data_type: int) -> str:
    """`TYPE_STRING` of a configuration is `BYTES` of a tensor."""
    name = str(model_config_pb2.DataType.Name(data_type)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
