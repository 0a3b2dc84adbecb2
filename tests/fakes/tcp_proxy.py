"""A TCP proxy between the gateway and a Triton that can break its connections, as SIGKILL or a lost network does."""

import asyncio
import contextlib


class TcpProxy:
    """Relays TCP to `target` (`host:port`). Runs on the caller's loop."""

    def __init__(self, target: str) -> None:
        self._target = target.rsplit(":", 1)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def listen(self) -> "TcpProxy":
        """Listen, on the same port after each `drop`."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def drop(self) -> None:
        """Reset all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _relay(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far, far_out = await asyncio.open_connection(*self._target)
        self._writers |= {near_out, far_out}

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(copy(near, far_out), copy(far, near_out))
        self._writers -= {near_out, far_out}
