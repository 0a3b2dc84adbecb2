"""The client of one Triton endpoint: repository index, model configurations, and streams of responses.

It speaks the KServe protocol (https://github.com/kserve/open-inference-protocol) over a `gateway.triton.transport`, and
does not interpret tensors.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self, TypeVar

from google.protobuf.message import DecodeError, Message

from gateway.errors import RETRY_AFTER_SECONDS, ModelFailed, ModelTimeout, ServerUnavailable
from gateway.triton.failures import to_gateway_error
from gateway.triton.infer_request import request_without_data, serialize
from gateway.triton.messages import service_pb2 as pb
from gateway.triton.model_config import ModelConfig, read_config
from gateway.triton.rpc.channel import Channel
from gateway.triton.rpc.status import RpcError
from gateway.triton.tensors import InferResponse, Tensor
from gateway.triton.transport import Call, Connect, Headers

_END_TIMEOUT_SECONDS = 1.0
"""Seconds that a server may take to end a stream after its final response."""

_STOP_TIMEOUT_SECONDS = 5.0
"""Timeout of a stop request, in seconds. No caller waits for it."""

SECRET_HEADER = "triton-grpc-protocol-tritonic"
"""Header with the secret of a Triton that was started with `--grpc-restricted-protocol=…:tritonic=SECRET`."""

_SERVICE = "/inference.GRPCInferenceService/"
_STREAM = f"{_SERVICE}ModelStreamInfer"


@dataclass(frozen=True, slots=True)
class StopRequest:
    """The request that stops another one where closing its stream does not: sent to `model` under the same id."""

    model: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A model of the repository. `state` is READY, LOADING, UNLOADING or UNAVAILABLE; `reason` explains the latter."""

    name: str
    state: str
    reason: str


@dataclass(slots=True, eq=False)
class CallState:
    """The state that the streams of one call to a model share."""

    model: str
    """The clients' name of the model."""
    has_response: bool = False
    """True once any of the streams has a response."""


class TritonClient:
    """One endpoint. Create it inside a running event loop."""

    def __init__(self, url: str, secret: str = "", connect: Connect = Channel) -> None:
        """`url` is `host:port` or `unix:/path`, `connect` makes its transport. Calls carry `secret` if there is one."""
        self.url = url
        self.in_flight = 0
        self.responses_received = 0
        """Messages of streams that the server has sent, since the start."""
        self._configs: dict[str, tuple[bytes, ModelConfig]] = {}
        self._transport = connect(url, [(SECRET_HEADER.encode(), secret.encode())] if secret else ())
        self._stop_tasks: set[asyncio.Task[None]] = set()
        self._streams: dict[ResponseStream, CallState] = {}
        """Streams that are read and not closed, with the state of their call. Those of a probe are not among them."""

    async def close(self) -> None:
        """Close the connection; streams in flight are cancelled."""
        for stopping in tuple(self._stop_tasks):
            stopping.cancel()
        await self._transport.close()

    async def repository_index(self, timeout: float = 5.0) -> list[IndexEntry]:
        """Return the models of the repository with their states. Raises `GatewayError`."""
        data = await self._unary("RepositoryIndex", pb.RepositoryIndexRequest(), timeout)
        answer = _parse(pb.RepositoryIndexResponse, data)
        return [IndexEntry(model.name, model.state, model.reason) for model in answer.models]

    async def config(self, name: str, timeout: float = 5.0) -> ModelConfig:
        """Return the configuration of a loaded model: the same object until it changes. Raises `GatewayError`."""
        data = await self._unary("ModelConfig", pb.ModelConfigRequest(name=name), timeout)
        before = self._configs.get(name)
        if before is None or before[0] != data:
            before = self._configs[name] = data, read_config(_parse(pb.ModelConfigResponse, data).config)
        return before[1]

    async def _unary(self, method: str, request: Message, timeout: float) -> bytes:
        try:
            return await self._transport.unary(_SERVICE + method, request.SerializeToString(), timeout=timeout)
        except RpcError as error:
            raise to_gateway_error(error.status, error.message) from error  # logs show the cause, callers do not

    def stream(
        self,
        model: str,
        tensors: Sequence[Tensor],
        *,
        request_id: str,
        timeout: float,
        stop: StopRequest | None = None,
        send_lock: asyncio.Lock | None = None,
        headers: Headers = (),
        state: CallState | None = None,
    ) -> "ResponseStream":
        """Return the responses of a model. The request is sent when the first response is awaited.

        The stream fails after `timeout` seconds without a response. Requests that share a `send_lock` are sent one at
        a time, because sending copies the whole request. The call carries `headers`. `state` is that of the call, for
        `give_up_unanswered`.
        """
        request = request_without_data(model, tensors, request_id)
        return ResponseStream(self, request, tensors, timeout, stop, send_lock, headers, state)

    def give_up_unanswered(self, models: Collection[str]) -> None:
        """Cancel the calls to `models`, by the clients' names, that have no response yet, also while they are sent.

        The readers of their streams get `ServerUnavailable`.
        """
        for stream, state in tuple(self._streams.items()):
            if state.model in models and not state.has_response:
                stream.give_up()

    def _stop_soon(self, stop: StopRequest, request_id: str) -> None:
        stopping = asyncio.create_task(self._stop(stop, request_id))
        self._stop_tasks.add(stopping)
        stopping.add_done_callback(self._stop_tasks.discard)

    async def _stop(self, stop: StopRequest, request_id: str) -> None:
        call = None
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                request = serialize(request_without_data(stop.model, stop.tensors, request_id), stop.tensors)
                call = await self._transport.call(_STREAM, request, idle=_STOP_TIMEOUT_SECONDS)
                while await call.read() is not None:
                    pass
        except (TimeoutError, RpcError):
            pass  # the server is slow or gone
        finally:
            if call:
                call.cancel()


class ResponseStream:
    """The responses to one request, up to the one with the final flag.

    Closing the stream earlier cancels the request at the server, and sends the `stop` request if there is one.
    Iterating raises a `GatewayError` if the request fails, if nothing arrives for `timeout` seconds, and if the stream
    ends before its final response.
    """

    def __init__(
        self,
        triton: TritonClient,
        request: pb.ModelInferRequest,
        tensors: Sequence[Tensor],
        timeout: float,
        stop: StopRequest | None,
        send_lock: asyncio.Lock | None = None,
        headers: Headers = (),
        state: CallState | None = None,
    ) -> None:
        """`request` lacks the data of the `tensors`. Nothing is sent yet."""
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        self._triton = triton
        self._request = request
        self._tensors = tensors
        self._timeout = timeout
        self._stop = stop
        self._send_lock = send_lock
        self._headers = headers
        self._state = state
        self._call: Call | None = None
        self._sending: asyncio.Timeout | None = None
        self._started = self._ended = self._closed = self._given_up = False

    @property
    def has_buffered(self) -> bool:
        """True if the next response has arrived already."""
        return self._call is not None and self._call.has_message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InferResponse:
        try:
            while not self._ended and not self._closed:
                answer = await self._read()
                self._ended = answer.parameters["triton_final_response"].bool_param
                if answer.outputs:
                    return InferResponse(answer)
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def _read(self) -> pb.ModelInferResponse:
        try:
            if self._call is None:
                self._started = True
                self._triton.in_flight += 1
                if self._state:
                    self._triton._streams[self] = self._state
                # `give_up` ends the wait: a server that takes nothing would be waited for until the connection is lost.
                async with asyncio.timeout(None) as self._sending, self._send_lock or nullcontext():
                    # Tensors may have a hundred megabytes, and a response may take minutes: keep neither copy.
                    sent, self._tensors = serialize(self._request, self._tensors), ()
                    self._call = await self._triton._transport.call(
                        _STREAM, sent, idle=self._timeout, headers=self._headers
                    )
                    del sent
                if self._given_up:
                    self._call.cancel()
            data = await self._call.read()
        except TimeoutError:
            if self._given_up:
                raise _given_up() from None
            raise ModelTimeout(f"The model sent no response for {self._timeout:g} seconds.") from None
        except RpcError as error:
            if self._given_up:
                raise _given_up() from None
            raise to_gateway_error(error.status, error.message) from None
        if self._state:
            self._state.has_response = True
        if data is None:
            raise ModelFailed("The server closed the stream before the response was complete.")
        self._triton.responses_received += 1
        message = _parse(pb.ModelStreamInferResponse, data)
        if message.error_message:
            self._ended = True
            raise to_gateway_error(None, message.error_message)
        return message.infer_response

    def give_up(self) -> None:
        """Cancel the request, which has no response yet. Its reader gets `ServerUnavailable`."""
        if self._given_up:
            return
        self._given_up = True
        if self._call:
            self._call.cancel()
        elif self._sending:
            self._sending.reschedule(0)  # a time that has passed

    async def aclose(self) -> None:
        """Cancel the request unless it is complete."""
        if self._closed:
            return
        self._closed = True
        self._triton._streams.pop(self, None)
        self._triton.in_flight -= self._started
        if self._call and not self._ended:
            self._call.cancel()
        elif self._call and not self._call.done:
            # Triton 2.51 never releases a stream that is cancelled between its last response and its end, and can then
            # not unload the model. So the server gets some time to end the stream.
            asyncio.get_running_loop().call_later(_END_TIMEOUT_SECONDS, self._call.cancel)
        if self._stop and self._started and not self._ended:
            self._triton._stop_soon(self._stop, self._request.id)


def _given_up() -> ServerUnavailable:
    return ServerUnavailable("The server does not answer.", retry_after=RETRY_AFTER_SECONDS)


Parsed = TypeVar("Parsed", bound=Message)


def _parse(kind: type[Parsed], data: bytes) -> Parsed:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ModelFailed("The server's response cannot be read.") from None
