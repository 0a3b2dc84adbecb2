"""A client that disconnects at a chosen moment."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Self

from tests.triton.text_client import Body, path
from tests.wire.gateway_server import RunningGateway


@dataclass(frozen=True, slots=True)
class DisconnectingClient:
    """A request that was sent on a connection of its own."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def send(cls, gateway: RunningGateway, body: Body) -> Self:
        content = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
        head = f"POST {path(body)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        return cls(reader, writer)

    async def wait_for_text(self) -> None:
        """Wait until a stream has sent some text."""
        while True:
            line = await self.reader.readline()
            assert line, "the gateway closed the connection"
            if line.startswith(b"data: {"):
                (choice,) = json.loads(line.removeprefix(b"data: "))["choices"]
                if choice.get("text") or choice.get("delta", {}).get("content"):
                    return

    def disconnect(self) -> float:
        """Close the connection, and return the time of the monotonic clock."""
        closed = time.monotonic()
        self.writer.transport.abort()
        return closed
