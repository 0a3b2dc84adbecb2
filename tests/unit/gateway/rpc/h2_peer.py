"""The other end of a connection, played by h2, which raises where a client breaks the rules of HTTP/2."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from gateway.triton.rpc.call import Call
from gateway.triton.rpc.connection import Connection

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


def grpc_message(message: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class H2Peer(asyncio.Protocol):
    """`sends` gets what the server says; `takes` is whether it lets a client send more as soon as something comes."""

    def __init__(self, settings: dict[SettingCodes, int] | None = None, takes: bool = True) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        if settings:
            self.h2.local_settings = Settings(client=False, initial_values=settings)
        self.takes = takes
        self.requests: dict[int, bytearray] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.order: list[int] = []
        """The streams that DATA came on, frame by frame."""
        self.ended: set[int] = set()
        self.resets: list[tuple[int, int]] = []
        self.updates: list[tuple[int | None, int]] = []
        self.pings: list[bytes] = []
        self.settled = 0
        self.wrong: list[Exception] = []
        self.lost = False
        self.sends: Callable[[bytes], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._pouring: dict[int, bytes] = {}
        self._changed = asyncio.Event()

    def greet(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and self.sends:
            self.sends(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have no base class in common
        self.sends = self._transport.write
        self.greet()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._changed.set()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                self._note(event)
            self._pour()
        except ProtocolError as error:
            self.wrong.append(error)
        self._changed.set()
        if self._transport:
            self.flush()
        else:
            asyncio.get_running_loop().call_soon(self.flush)  # a client does not write and read at once

    def _note(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                self.headers[event.stream_id] = dict(cast("list[tuple[str, str]]", event.headers))
                self.requests[event.stream_id] = bytearray()
            case events.DataReceived():
                self.requests[event.stream_id] += event.data
                self.order.append(event.stream_id)
                if self.takes and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.StreamEnded():
                self.ended.add(event.stream_id)
            case events.StreamReset() if event.remote_reset:
                self.resets.append((event.stream_id, int(event.error_code)))
                self._pouring.pop(event.stream_id, None)
            case events.WindowUpdated():
                self.updates.append((event.stream_id, event.delta))
            case events.PingAckReceived():
                self.pings.append(event.ping_data)
            case events.SettingsAcknowledged():
                self.settled += 1

    async def until(self, condition: Callable[["H2Peer"], object]) -> None:
        async with asyncio.timeout(30):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def wait_for_request(self, stream: int) -> bytes:
        """The message of a request, once it is whole."""
        await self.until(lambda peer: stream in peer.ended)
        body = bytes(self.requests[stream])
        assert body[:5] == grpc_message(body[5:])[:5]
        return body[5:]

    def open(self, stream: int, head: list[tuple[str, str]] = HEAD) -> None:
        self.h2.send_headers(stream, head)
        self.flush()

    def send_messages(self, stream: int, *messages: bytes) -> None:
        """All of them in one frame."""
        self.h2.send_data(stream, b"".join(map(grpc_message, messages)))
        self.flush()

    def end(self, stream: int, trailers: list[tuple[str, str]] = OK) -> None:
        self.h2.send_headers(stream, trailers, end_stream=True)
        self.flush()

    def answer(self, stream: int, *messages: bytes) -> None:
        self.open(stream)
        for message in messages:
            self.send_messages(stream, message)
        self.end(stream)

    def upload(self, stream: int, data: bytes) -> None:
        """Send it as the client allows, and end the stream."""
        self._pouring[stream] = data
        self._pour()
        self.flush()

    def is_uploaded(self, stream: int) -> bool:
        return stream not in self._pouring

    def _pour(self) -> None:
        for stream, data in list(self._pouring.items()):
            while data and (size := min(len(data), self.h2.local_flow_control_window(stream), 16_384)) > 0:
                self.h2.send_data(stream, data[:size])
                data = data[size:]
            self._pouring[stream] = data
            if not data:
                self.h2.send_headers(stream, OK, end_stream=True)
                del self._pouring[stream]

    def raw(self, data: bytes) -> None:
        assert self.sends
        self.sends(data)

    def close(self) -> None:
        if self._transport:
            self._transport.close()


class MemoryTransport(asyncio.Transport):
    """A connection without a network: what the client writes is with the peer at once."""

    def __init__(self, connection: Connection, peer: H2Peer) -> None:
        super().__init__()
        self.connection, self.peer = connection, peer
        self.written = bytearray()
        self.closing = self.aborted = False
        self.stuck: int | None = None
        """Bytes that the peer has not taken, where it does not read."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self.written += data
        if self.stuck is None:
            self.peer.data_received(bytes(data))
        else:
            self.stuck += len(data)

    def get_write_buffer_size(self) -> int:
        return self.stuck or 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()


class ConnectedPair:
    """A client and its peer over a wire; the peer speaks where `flush` or a method of its own is called."""

    def __init__(self, settings: dict[SettingCodes, int] | None = None, takes: bool = True) -> None:
        self.peer = H2Peer(settings, takes)
        self.connection = Connection()
        self.wire = MemoryTransport(self.connection, self.peer)
        self.connection.connection_made(self.wire)
        self.peer.sends = self.connection.data_received
        self.peer.greet()

    async def call(self, message: bytes = b"question", idle: float = 60) -> Call:
        call = await self.connection.call(HEADERS, message, idle)
        assert call
        return call

    def task(self, message: bytes = b"question") -> asyncio.Task[Call]:
        return asyncio.create_task(self.call(message))

    async def settle(self) -> None:
        """Let everybody say what there is to say."""
        for _ in range(10):
            self.peer.flush()
            await asyncio.sleep(0)


class PeerServer:
    """Peers at a port of this machine, one for each connection."""

    def __init__(self, make: Callable[[], asyncio.Protocol] = H2Peer) -> None:
        self.peers: list = []
        self._make = make
        self._more = asyncio.Event()

    def _connect(self) -> asyncio.Protocol:
        self.peers.append(self._make())
        self._more.set()
        return self.peers[-1]

    async def __aenter__(self) -> "PeerServer":
        return self if hasattr(self, "_server") else await self.start()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> "PeerServer":
        self._server = await asyncio.get_running_loop().create_server(self._connect, host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{host}:{self.port}"
        return self

    async def peer(self, number: int = 0) -> H2Peer:
        async with asyncio.timeout(30):
            while len(self.peers) <= number:
                self._more.clear()
                await self._more.wait()
        return self.peers[number]

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for peer in self.peers:
            with suppress(AttributeError):
                peer.close()
        for peer in self.peers:
            if isinstance(peer, H2Peer):
                await peer.until(lambda peer: peer.lost)
        await self._server.wait_closed()


async def read_all(call: Call) -> list[bytes]:
    messages = []
    while (message := await call.read()) is not None:
        messages.append(message)
    return messages


def _head() -> bytes:
    from gateway.triton.rpc import headers

    fields = {":method": "POST", ":scheme": "http", ":path": "/a.B/C", ":authority": "here", "te": "trailers"}
    return headers.encode_block((name.encode(), value.encode()) for name, value in fields.items())


HEADERS = _head()
