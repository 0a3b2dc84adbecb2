"""A server of grpcio at the other end, and the transport that calls it."""

import asyncio
from typing import Any

import grpc

from gateway.triton.rpc.channel import Channel
from gateway.triton.transport import Connect, Transport


class TestService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Methods of `/a.B/`, whose messages are plain bytes.

    Echo sends a message back as often as its first byte says; Hold answers once and waits; Flood answers without end
    and counts; Early answers before it reads the request; Fail answers once and fails; Headers answers with the
    metadata of the call.
    """

    __test__ = False

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.given_up = asyncio.Event()
        self.num_flooded = 0

    def service(self, details: Any) -> Any:
        method = getattr(self, "_" + details.method.removeprefix("/a.B/").lower(), None)
        return grpc.stream_stream_rpc_method_handler(method) if method else None

    async def _echo(self, requests, context):
        async for message in requests:
            for _ in range(message[0]):
                yield message

    async def _hold(self, requests, context):
        try:
            async for _ in requests:
                yield b"one"
                self.held.set()
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):  # the latter where the answer is still being sent
            self.given_up.set()
            raise

    async def _flood(self, requests, context):
        async for _ in requests:
            while True:
                yield b"x" * 10_000
                self.num_flooded += 1

    async def _early(self, requests, context):
        yield b"one"

    async def _fail(self, requests, context):
        yield b"one"
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "né 100% 😀\n")

    async def _headers(self, requests, context):
        yield repr(sorted((str(key), str(value)) for key, value in context.invocation_metadata())).encode()


class GrpcServer:
    """Serves `service` at a port of its own. `connect` makes `transport`, which is closed at the end."""

    def __init__(
        self, service: TestService, connect: Connect = Channel, credentials: Any = None, port: int = 0, **options: int
    ) -> None:
        """`options` are those of grpcio, without `grpc.`."""
        self.service = service
        self._connect = connect
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), *((f"grpc.{key}", value) for key, value in options.items())]
        )
        self._server.add_generic_rpc_handlers([service])
        address = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self.transport: Transport

    async def __aenter__(self) -> "GrpcServer":
        await self._server.start()
        self.transport = self._connect(f"127.0.0.1:{self.port}", [(b"x-secret", b"sesame")])
        return self

    async def stop(self, grace: float | None = None) -> None:
        await self._server.stop(grace)

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()
        await self._server.stop(None)


async def count_echoes(transport: Transport, message: bytes) -> int:
    call = await transport.call("/a.B/Echo", message, idle=60)
    count = 0
    while (answer := await call.read()) is not None:
        assert answer == message
        count += 1
    return count
